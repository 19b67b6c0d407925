"""The reaper: finds what a killed process or a lost message left behind, and sets it going again.

Everything here may be done by several reapers at once and any number of times: a row is taken back by a conditional
update, and a message too many finds its row claimed, and ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from search_spaces.objectives import Outcome, TrialState
from search_spaces.spec import SearchSpec
from service import leases
from service.datasets.actions import IndexFailedError, fail_index
from service.db import reading, transaction
from service.devices.actions import find_stranded, note_absence, note_held_up, wake_waiting
from service.devices.queries import absent_devices
from service.exports.actions import finish_export
from service.finalists.actions import finish_finalist
from service.models import Claimable, Finalist, Search, SearchWork, Trial, utc_now
from service.networks.actions import ImportFailedError, fail_import
from service.preparations.actions import fail_preparation
from service.queue import MODEL_OF, TaskName, send_after_commit
from service.refinements.actions import finish_refinement
from service.searches.actions import WORK, cancel_queued, settle
from service.searches.busy import find_held_up
from service.searches.queries import lock_search, searches_in
from service.states import JobState, SearchState
from service.trials.actions import finish_trial
from workers.prepare import UnpreparedError

_LONGEST_WAIT_S = 60.0
_ENDED = [state for state in SearchState if state.is_final]


@dataclass
class Reaper:
    """What one reaper remembers between its rounds.

    Attributes:
        patience_s: how long a message may take before it counts as lost.
        replanned: when a search was last sent to be planned by this reaper.
    """

    engine: Engine
    patience_s: float
    replanned: dict[str, float] = field(default_factory=dict)

    def reap(self) -> None:
        """One round."""
        for task, model in MODEL_OF.items():
            self._free_expired(task, model)
        self._end_what_is_over()
        self._note_absence()
        self._note_held_up()
        for task, model in MODEL_OF.items():
            self._repeat_lost(task, model)
        self._replan_idle()

    def _free_expired(self, task: TaskName, model: type[Claimable]) -> None:
        with transaction(self.engine) as session:
            expired = leases.requeue_expired(session, model)
            for row_id in expired.requeued:
                send_after_commit(session, task, row_id)
        for row_id, attempt in expired.exhausted:
            with transaction(self.engine) as session:
                if _END[task](session, row_id, attempt) and model in WORK:
                    search_id = session.get_one(model, row_id).search_id
                    send_after_commit(session, TaskName.PLAN, search_id)

    def _end_what_is_over(self) -> None:
        """Rows that came back to the queue of a search that is over: nobody would claim them."""
        with reading(self.engine) as session:
            search_ids = searches_in(session, SearchState.CANCELLING) + _ended_with_rows_left(session)
        for search_id in search_ids:
            with transaction(self.engine) as session:
                search = lock_search(session, search_id)
                cancel_queued(session, search_id)
                settle(session, search)

    def _note_absence(self) -> None:
        with reading(self.engine) as session:
            stranded = find_stranded(session)
        for search_id in stranded:
            with transaction(self.engine) as session:
                note_absence(session, search_id)

    def _note_held_up(self) -> None:
        wake_waiting(self.engine)
        with reading(self.engine) as session:
            held_up = find_held_up(session)
        for search_id in held_up:
            with transaction(self.engine) as session:
                note_held_up(session, search_id)

    def _repeat_lost(self, task: TaskName, model: type[Claimable]) -> None:
        with reading(self.engine) as session:
            lost = leases.unpublished(session, model, self.patience_s)
            waits = session.execute(
                select(model.id, model.created_at, model.published_at).where(model.id.in_(lost))
            ).all()
            unheard = _without_device(session, model, lost)
        due = [
            row_id
            for row_id, created, published in waits
            if row_id not in unheard and self._is_due(created, published, len(waits))
        ]
        if due:
            with transaction(self.engine) as session:
                for row_id in due:
                    send_after_commit(session, task, row_id)

    def _is_due(self, created: Any, published: Any, waiting: int) -> bool:
        """A message may also just wait for its turn: each repetition comes later, and later in a long queue."""
        longest_s = _LONGEST_WAIT_S + waiting
        wait_s = min(max(self.patience_s, (published - created).total_seconds()), longest_s)
        return bool(utc_now() - published > timedelta(seconds=wait_s))

    def _replan_idle(self) -> None:
        with reading(self.engine) as session:
            active = searches_in(session, SearchState.RUNNING, SearchState.CONFIRMING)
            idle = [search_id for search_id in active if _is_idle(session, search_id, self.patience_s)]
        now = time.monotonic()
        for search_id in idle:
            if now - self.replanned.get(search_id, -self.patience_s) < self.patience_s:
                continue
            self.replanned[search_id] = now
            with transaction(self.engine) as session:
                send_after_commit(session, TaskName.PLAN, search_id)
        self.replanned = {search_id: at for search_id, at in self.replanned.items() if search_id in active}


def _without_device(session: Session, model: type[Claimable], row_ids: list[Any]) -> set[Any]:
    """Those that no worker is there for: a message to an absent device would only be one more that waits."""
    absent = absent_devices(session)
    if not row_ids or not absent or not issubclass(model, SearchWork):
        return set()
    specs = select(model.id, Search.spec).join(Search, Search.id == model.search_id).where(model.id.in_(row_ids))
    return {row_id for row_id, spec in session.execute(specs) if SearchSpec.model_validate(spec).device in absent}


def _ended_with_rows_left(session: Session) -> list[str]:
    found: set[str] = set()
    for model in WORK:
        left = select(model.search_id).join(Search, Search.id == model.search_id)
        found.update(session.scalars(left.where(Search.state.in_(_ENDED), model.state == JobState.QUEUED)))
    return sorted(found)


def _is_idle(session: Session, search_id: str, patience_s: float) -> bool:
    """Whether nothing is under way for an active search, nobody plans it, and that not just now."""
    search = session.get_one(Search, search_id)
    now = utc_now()
    is_planned = search.planner_expires_at is not None and search.planner_expires_at > now
    if is_planned or now - search.updated_at < timedelta(seconds=patience_s):
        return False
    return not any(_count_open(session, model, search_id) for model in (Trial, Finalist))


def _count_open(session: Session, model: type[SearchWork], search_id: str) -> int:
    is_open = (model.state == JobState.RUNNING) | ((model.state == JobState.QUEUED) & model.published_at.is_not(None))
    return session.scalar(select(func.count()).where(model.search_id == search_id, is_open)) or 0


_REASON = f"its worker died, {leases.MAX_ATTEMPTS} times"


def _end_preparation(session: Session, row_id: Any, attempt: int) -> bool:
    return fail_preparation(session, row_id, attempt, UnpreparedError(_REASON).document())


def _end_trial(session: Session, row_id: Any, attempt: int) -> bool:
    return finish_trial(session, row_id, attempt, Outcome(TrialState.FAILED, reason=_REASON))


def _end_finalist(session: Session, row_id: Any, attempt: int) -> bool:
    return finish_finalist(session, row_id, attempt, JobState.FAILED, _REASON)


def _end_export(session: Session, row_id: Any, attempt: int) -> bool:
    return finish_export(session, row_id, attempt, JobState.FAILED, _REASON)


def _end_refinement(session: Session, row_id: Any, attempt: int) -> bool:
    return finish_refinement(session, row_id, attempt, JobState.FAILED, _REASON)


def _end_import(session: Session, row_id: Any, attempt: int) -> bool:
    return fail_import(session, row_id, attempt, ImportFailedError(_REASON).document())


def _end_index(session: Session, row_id: Any, attempt: int) -> bool:
    return fail_index(session, row_id, attempt, IndexFailedError(_REASON).document())


_END: dict[TaskName, Callable[[Session, Any, int], bool]] = {
    TaskName.PREPARE: _end_preparation,
    TaskName.RUN: _end_trial,
    TaskName.CONFIRM: _end_finalist,
    TaskName.EXPORT: _end_export,
    TaskName.REFINE: _end_refinement,
    TaskName.IMPORT: _end_import,
    TaskName.INDEX: _end_index,
}
