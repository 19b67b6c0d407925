"""The job of getting a search's base ready. The caller commits."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service import leases
from service.models import Preparation, Search
from service.searches.actions import fail, move, settle
from service.searches.queries import lock_search
from service.states import JobState, SearchState


def start_preparation(session: Session, preparation_id: int, owner: str, lease_s: float) -> int | None:
    """Claim it; returns the attempt, or None when it is not to be done, or not now."""
    search = _lock(session, preparation_id)
    if search is None or search.state not in (SearchState.QUEUED, SearchState.PREPARING):
        return None
    attempt = leases.claim(session, Preparation, preparation_id, owner, lease_s)
    if attempt is not None and search.state is SearchState.QUEUED:
        move(session, search, SearchState.PREPARING)
    return attempt


def finish_preparation(
    session: Session, preparation_id: int, attempt: int, base_key: str, base_report: dict[str, Any]
) -> bool:
    """Record the base, and let trials begin, unless the search is paused or over. False: the lease was lost."""
    search = _lock(session, preparation_id)
    if search is None or not leases.finish(session, Preparation, preparation_id, attempt, JobState.SUCCEEDED):
        return False
    search.base_key, search.base_report = base_key, base_report
    if search.state is SearchState.PREPARING:
        move(session, search, SearchState.RUNNING)
    elif search.state is SearchState.PAUSED:
        search.resume_to = SearchState.RUNNING
    settle(session, search)
    return True


def fail_preparation(session: Session, preparation_id: int, attempt: int, problem: dict[str, Any]) -> bool:
    """End it and its search as failed. False: the lease was lost."""
    search = _lock(session, preparation_id)
    reason = str(problem.get("detail", ""))
    if search is None or not leases.finish(session, Preparation, preparation_id, attempt, JobState.FAILED, reason):
        return False
    if search.state.is_over:
        settle(session, search)
    else:
        fail(session, search, problem)
    return True


def cancel_preparation(session: Session, preparation_id: int, attempt: int) -> bool:
    """End it because its search is over. False: the lease was lost."""
    search = _lock(session, preparation_id)
    if search is None or not leases.finish(session, Preparation, preparation_id, attempt, JobState.CANCELLED):
        return False
    settle(session, search)
    return True


def _lock(session: Session, preparation_id: int) -> Search | None:
    search_id = session.scalar(select(Preparation.search_id).where(Preparation.id == preparation_id))
    return None if search_id is None else lock_search(session, search_id)
