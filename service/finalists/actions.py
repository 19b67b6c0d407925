"""Trials that are fine-tuned and scored again on the split `confirm`. The caller commits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from service import leases
from service.events.actions import append_event
from service.models import Finalist, Search, Trial, utc_now
from service.queue import TaskName, send_after_commit
from service.searches.actions import settle
from service.searches.queries import lock_search
from service.states import EventKind, JobState, SearchState

_TO_REPEAT = (JobState.FAILED, JobState.CANCELLED)


def unconfirmed(session: Session, trial_ids: Sequence[int]) -> list[int]:
    """Those of the trials that have not been confirmed, in their order."""
    done = select(Finalist.trial_id).where(Finalist.trial_id.in_(trial_ids), Finalist.state == JobState.SUCCEEDED)
    confirmed = set(session.scalars(done))
    return [trial_id for trial_id in trial_ids if trial_id not in confirmed]


@dataclass(frozen=True)
class KnownFinalist:
    """What a finalist ends with that another search has confirmed in the same way."""

    values: Mapping[str, Any]
    details: Mapping[str, Any]
    weights_digest: str | None


def add_finalists(
    session: Session, search: Search, trial_ids: Sequence[int], known: Mapping[int, KnownFinalist] | None = None
) -> list[Finalist]:
    """Add finalists, and have those confirmed that are not `known`, by trial. `search` must be locked.

    One that failed, or was dropped with its search, is confirmed anew.
    """
    session.execute(delete(Finalist).where(Finalist.trial_id.in_(trial_ids), Finalist.state.in_(_TO_REPEAT)))
    finalists = [_row(search, trial_id, (known or {}).get(trial_id)) for trial_id in trial_ids]
    session.add_all(finalists)
    search.version += 1
    session.flush()
    waiting = [finalist for finalist in finalists if finalist.state == JobState.QUEUED]
    for finalist in finalists:
        if finalist not in waiting:
            _tell(session, finalist.id)
    for finalist in waiting:
        send_after_commit(session, TaskName.CONFIRM, finalist.id)
    if not waiting:
        send_after_commit(session, TaskName.PLAN, search.id)
    return finalists


def _row(search: Search, trial_id: int, known: KnownFinalist | None) -> Finalist:
    """To be confirmed, or ended as it is added: then nobody can have claimed it."""
    finalist = Finalist(search_id=search.id, trial_id=trial_id, state=str(JobState.QUEUED))
    if known is not None:
        finalist.state, finalist.finished_at = str(JobState.SUCCEEDED), utc_now()
        finalist.values, finalist.details = dict(known.values), dict(known.details)
        finalist.sources = _sources_of(known.details)
        finalist.weights_digest = known.weights_digest
    return finalist


def _sources_of(details: Mapping[str, Any]) -> dict[str, str]:
    return {one["metric"]: one["provenance"] for one in details.get("measurements", ())}


def start_finalist(session: Session, finalist_id: int, owner: str, lease_s: float) -> int | None:
    """Claim it; returns the attempt, or None when it is not there to be claimed."""
    search = _lock(session, finalist_id)
    if search is None or search.state is not SearchState.CONFIRMING:
        return None
    attempt = leases.claim(session, Finalist, finalist_id, owner, lease_s)
    if attempt is not None:
        _tell(session, finalist_id)
    return attempt


def finish_finalist(
    session: Session,
    finalist_id: int,
    attempt: int,
    state: JobState,
    reason: str = "",
    *,
    values: Mapping[str, float] | None = None,
    details: Mapping[str, Any] | None = None,
    weights_digest: str | None = None,
) -> bool:
    """End it with what was found. False: the lease was lost, and nothing is written."""
    search = _lock(session, finalist_id)
    columns = {
        "values": dict(values or {}),
        "details": dict(details or {}),
        "sources": _sources_of(details or {}),
        "weights_digest": weights_digest,
    }
    if search is None or not leases.finish(session, Finalist, finalist_id, attempt, state, reason, **columns):
        return False
    _tell(session, finalist_id)
    settle(session, search)
    return True


def _tell(session: Session, finalist_id: int) -> None:
    finalist = session.get_one(Finalist, finalist_id, populate_existing=True)
    number = session.scalar(select(Trial.number).where(Trial.id == finalist.trial_id))
    data = {"number": number, "state": finalist.state, "values": finalist.values, "reason": finalist.reason}
    append_event(session, finalist.search_id, EventKind.FINALIST, data)


def _lock(session: Session, finalist_id: int) -> Search | None:
    search_id = session.scalar(select(Finalist.search_id).where(Finalist.id == finalist_id))
    return None if search_id is None else lock_search(session, search_id)
