"""What the tasks of one worker share, and how it works on a claimed row.

The flow of every job is the same: claim a row, have the evaluator do the work while the lease is renewed and the
search is watched, then end the row in one transaction, fenced by the attempt. What the job is, and what its end
means, is said by `prepare`, `trial`, `confirm`, `export_task` and `bring_tasks`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from service import leases
from service.db import reading, transaction
from service.models import Search
from service.queue import MODEL_OF, TaskName, send_after_commit
from service.searches.actions import report_progress
from service.searches.specs import spec_of
from service.states import JobState
from workers.evaluator import FaultKind, JobName
from workers.evaluator_process import Evaluators, JobError
from workers.progress import Progress

_log = logging.getLogger(__name__)

LEASE_S = 15.0
RENEW_EVERY_S = LEASE_S / 3
LOOK_EVERY_S = 0.5
PROGRESS_EVERY_S = 1.0


@dataclass(frozen=True)
class Workplace:
    """One worker's surroundings.

    Attributes:
        owner: names this worker in leases.
        stopping: set once the worker is told to stop; its jobs are then put back.
    """

    engine: Engine
    home: Path
    owner: str
    evaluators: Evaluators
    stopping: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Claim:
    """A row that this worker has claimed.

    Attributes:
        search_id: whose end would end the work; None for what belongs to no search.
        subject: who progress is reported of, where that is not clear.
    """

    task: TaskName
    row_id: Any
    attempt: int
    search_id: str | None = None
    subject: str = ""


@dataclass(frozen=True)
class Ending:
    """How the work on a claimed row ended: SUCCEEDED with a result, FAILED with a fault and a reason, or CANCELLED."""

    state: JobState
    result: Mapping[str, Any] = field(default_factory=dict)
    fault: FaultKind | None = None
    reason: str = ""


class Interruption(StrEnum):
    SEARCH_OVER = "the search is over"
    LEASE_LOST = "the lease was lost"
    STOPPING = "the worker is told to stop"


class InterruptedJobError(Exception):
    """The job was stopped before its end, for a reason that is not its own."""

    def __init__(self, cause: Interruption) -> None:
        super().__init__(str(cause))
        self.cause = cause


def arguments_of(search: Search) -> dict[str, Any]:
    """What all jobs of a search that is prepared are told of it."""
    return {"spec": spec_of(search).model_dump(mode="json"), "sources": search.sources, "base_key": search.base_key}


def work(
    workplace: Workplace, claim: Claim, job: JobName, arguments: dict[str, Any], deadline_s: float
) -> Ending | None:
    """Have the evaluator do a claimed row's job. None: the row waits again, or is somebody else's by now."""
    progress = _progress_of(workplace, claim)
    try:
        with workplace.evaluators.borrow() as evaluator:
            watch = _watch(workplace, claim)
            result = evaluator.run(job, arguments, watch=watch, deadline_s=deadline_s, progress=progress)
        return Ending(JobState.SUCCEEDED, result)
    except InterruptedJobError as interruption:
        if interruption.cause is Interruption.SEARCH_OVER:
            return Ending(JobState.CANCELLED)
        if interruption.cause is Interruption.STOPPING:
            _put_back(workplace, claim, counts=False)
        return None
    except JobError as error:
        _log.warning("%s %s, attempt %s: %s", claim.task, claim.row_id, claim.attempt, error.reason)
        if _is_worth_another_attempt(claim, error):
            _put_back(workplace, claim, counts=True)
            return None
        return Ending(JobState.FAILED, fault=error.kind, reason=error.reason)


def _is_worth_another_attempt(claim: Claim, error: JobError) -> bool:
    """A process may be killed from outside and a download may break; a trial that raised would raise again."""
    may_pass = error.kind is FaultKind.DIED or claim.task is TaskName.PREPARE
    return may_pass and claim.attempt < leases.MAX_ATTEMPTS


def _put_back(workplace: Workplace, claim: Claim, *, counts: bool) -> None:
    with transaction(workplace.engine) as session:
        if leases.release(session, MODEL_OF[claim.task], claim.row_id, claim.attempt, counts=counts):
            send_after_commit(session, claim.task, claim.row_id)


def _watch(workplace: Workplace, claim: Claim) -> Callable[[], None]:
    """The function that the evaluator's supervisor calls while the job runs; it raises to stop the job."""
    renewed = looked = time.monotonic()

    def watch() -> None:
        nonlocal renewed, looked
        now = time.monotonic()
        if workplace.stopping.is_set():
            raise InterruptedJobError(Interruption.STOPPING)
        if now - looked < LOOK_EVERY_S:
            return
        looked = now
        try:
            if claim.search_id is not None and _is_search_over(workplace, claim.search_id):
                raise InterruptedJobError(Interruption.SEARCH_OVER)
            if now - renewed >= RENEW_EVERY_S:
                _renew(workplace, claim)
                renewed = now
        except OperationalError:
            # The database may be back before anyone could have taken the row.
            _log.warning("cannot reach the database", exc_info=True)
            if time.monotonic() - renewed > LEASE_S:
                raise InterruptedJobError(Interruption.LEASE_LOST) from None

    return watch


def _is_search_over(workplace: Workplace, search_id: str) -> bool:
    with reading(workplace.engine) as session:
        state = session.scalar(select(Search.state).where(Search.id == search_id))
    return state is None or state.is_over


def _renew(workplace: Workplace, claim: Claim) -> None:
    with transaction(workplace.engine) as session:
        is_ours = leases.renew(session, MODEL_OF[claim.task], claim.row_id, claim.attempt, LEASE_S)
    if not is_ours:
        raise InterruptedJobError(Interruption.LEASE_LOST)


def _progress_of(workplace: Workplace, claim: Claim) -> Progress:
    """Progress for people: of the long jobs only, and about once a second. A trial is itself a step of progress."""
    is_long = claim.task in _LONG
    told = time.monotonic() - PROGRESS_EVERY_S
    told_stage = ""

    def progress(stage: str, done: float, message: str) -> None:
        nonlocal told, told_stage
        now = time.monotonic()
        is_due = now - told >= PROGRESS_EVERY_S or stage != told_stage
        if not is_long or not is_due:
            return
        told, told_stage = now, stage
        try:
            with transaction(workplace.engine) as session:
                _tell(session, claim, stage, min(max(done, 0.0), 1.0), f"{claim.subject}{message}")
        except OperationalError:
            _log.warning("cannot tell progress", exc_info=True)

    return progress


_LONG = frozenset({TaskName.PREPARE, TaskName.CONFIRM, TaskName.REFINE, TaskName.IMPORT, TaskName.INDEX})


def _tell(session: Session, claim: Claim, stage: str, share: float, message: str) -> None:
    if claim.search_id is not None:
        report_progress(session, claim.search_id, stage, share, message)
    else:
        activity = {"stage": stage, "share": share, "message": message}
        leases.tell_activity(session, MODEL_OF[claim.task], claim.row_id, claim.attempt, activity)
