"""Requests to train a design on for long. The caller commits."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from service import leases
from service.errors import NotFoundError, StateConflictError
from service.events.actions import append_event
from service.models import Refinement, Search, Trial, utc_now
from service.queue import TaskName, send_after_commit
from service.searches.queries import lock_search
from service.states import EventKind, JobState, TrialState


def request_refinement(
    session: Session, search: Search, trial: Trial, settings: Mapping[str, Any]
) -> tuple[Refinement, bool]:
    """Ask for a trial's design to be refined; returns the refinement, and whether it is a new one.

    One of the same trial with the same settings that is under way, or has succeeded, answers every later request.

    Raises:
        StateConflictError: the search goes on, and trials would wait for it; or the trial has not succeeded.
    """
    if not search.state.is_final:
        detail = f"the search is {search.state}; designs are refined once it is over"
        raise StateConflictError(detail, extra={"state": search.state})
    if trial.state != TrialState.SUCCEEDED:
        detail = f"trial {trial.number} is {trial.state}; only a succeeded trial can be refined"
        raise StateConflictError(detail, extra={"state": trial.state})
    lock_search(session, search.id)
    useful = (JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED)
    for standing in session.scalars(
        select(Refinement).where(Refinement.trial_id == trial.id, Refinement.state.in_(useful))
    ):
        if standing.settings == dict(settings):
            return standing, False
    row = Refinement(id=str(uuid.uuid4()), search_id=search.id, trial_id=trial.id, settings=dict(settings))
    session.add(row)
    session.flush()
    send_after_commit(session, TaskName.REFINE, row.id)
    _tell(session, row.id)
    return row, True


def cancel_refinement(session: Session, refinement_id: str) -> None:
    """End one that waits or runs; its worker sees within seconds that its lease is gone. One that has ended stays so.

    Raises:
        NotFoundError: there is none.
    """
    search_id = session.scalar(select(Refinement.search_id).where(Refinement.id == refinement_id))
    if search_id is None:
        raise NotFoundError(f"there is no refinement {refinement_id}")
    lock_search(session, search_id)
    is_open = Refinement.state.in_((JobState.QUEUED, JobState.RUNNING))
    ended = {"state": str(JobState.CANCELLED), "finished_at": utc_now(), "activity": None}
    freed = {"lease_owner": None, "lease_expires_at": None}
    ending = update(Refinement).where(Refinement.id == refinement_id, is_open).values(**ended, **freed)
    if session.scalar(ending.returning(Refinement.id).execution_options(synchronize_session=False)) is not None:
        _tell(session, refinement_id)


def finish_refinement(
    session: Session,
    refinement_id: str,
    attempt: int,
    state: JobState,
    reason: str = "",
    *,
    result: Mapping[str, Any] | None = None,
) -> bool:
    """End it with what the job returned. False: the lease was lost, and nothing is written."""
    search_id = session.scalar(select(Refinement.search_id).where(Refinement.id == refinement_id))
    if search_id is None:
        return False
    lock_search(session, search_id)
    found = result or {}
    details = found.get("details", {})
    columns = {
        "activity": None,
        "before": dict(found.get("before", {})),
        "values": dict(found.get("values", {})),
        "details": dict(details),
        "sources": {one["metric"]: one["provenance"] for one in details.get("measurements", ())},
        "weights_digest": found.get("weights_digest"),
    }
    if not leases.finish(session, Refinement, refinement_id, attempt, state, reason, **columns):
        return False
    _tell(session, refinement_id)
    return True


def _tell(session: Session, refinement_id: str) -> None:
    row = session.get_one(Refinement, refinement_id, populate_existing=True)
    number = session.scalar(select(Trial.number).where(Trial.id == row.trial_id))
    data = {"id": row.id, "number": number, "state": row.state, "values": row.values, "reason": row.reason}
    append_event(session, row.search_id, EventKind.REFINEMENT, data)
