"""Requests for a trial's file. The caller commits."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from service import leases
from service.errors import StateConflictError
from service.events.actions import append_event
from service.exports.queries import final_weights
from service.models import Export, Trial
from service.queue import TaskName, send_after_commit
from service.searches.queries import lock_search
from service.states import EventKind, JobState, TrialState


def request_export(session: Session, trial: Trial) -> tuple[Export, bool]:
    """Ask for a trial's file; returns the export, and whether it is a new one.

    The file depends on the trial alone, and on which weights there are of it when a worker begins. So an export that
    waits, or that has begun since the newest weights were left, answers every later request.

    Raises:
        StateConflictError: the trial has not succeeded, so that there is nothing to vouch for.
    """
    if trial.state != TrialState.SUCCEEDED:
        detail = f"trial {trial.number} is {trial.state}; only a succeeded trial can be exported"
        raise StateConflictError(detail, extra={"state": trial.state})
    lock_search(session, trial.search_id)
    useful = (JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED)
    standing = select(Export).where(Export.trial_id == trial.id, Export.state.in_(useful)).limit(1)
    final = final_weights(session, trial.id)
    if final is not None and final.finished_at is not None:
        standing = standing.where(or_(Export.started_at.is_(None), Export.started_at >= final.finished_at))
    export = session.scalars(standing).one_or_none()
    if export is not None:
        return export, False
    export = Export(id=str(uuid.uuid4()), search_id=trial.search_id, trial_id=trial.id, state=str(JobState.QUEUED))
    session.add(export)
    session.flush()
    send_after_commit(session, TaskName.EXPORT, export.id)
    _tell(session, export.id)
    return export, True


def finish_export(
    session: Session,
    export_id: str,
    attempt: int,
    state: JobState,
    reason: str = "",
    *,
    files: Sequence[str] = (),
    report: dict[str, Any] | None = None,
) -> bool:
    """End it. False: the lease was lost, and nothing is written.

    Args:
        files: digests of artifacts: the exported file, then those that come with it.
        report: reported against re-measured figures.
    """
    search_id = session.scalar(select(Export.search_id).where(Export.id == export_id))
    if search_id is None:
        return False
    lock_search(session, search_id)
    columns = {"artifact_digest": next(iter(files), None), "files": list(files[1:]), "report": report or {}}
    if not leases.finish(session, Export, export_id, attempt, state, reason, **columns):
        return False
    _tell(session, export_id)
    return True


def _tell(session: Session, export_id: str) -> None:
    export = session.get_one(Export, export_id, populate_existing=True)
    number = session.scalar(select(Trial.number).where(Trial.id == export.trial_id))
    data = {"id": export.id, "number": number, "state": export.state, "reason": export.reason}
    append_event(session, export.search_id, EventKind.EXPORT, data)
