"""Going on with a search that is over: more trials, and those that failed once more. The caller commits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from search_spaces.faults import Fault
from search_spaces.spec import MOST_TRIALS, BudgetSpec
from service.errors import IdempotencyKeyReusedError, InvalidRequestError, StateConflictError
from service.models import Measurement, Residual, Search, Trial, utc_now
from service.queue import TaskName, send_after_commit
from service.searches.actions import enter
from service.states import Obtained, SearchState, TrialState
from service.wording import counted

EMPTY_FRONT = "no trial met the limits: the front is empty"
"""A warning that an extension may make untrue."""

_TO_REPEAT = (TrialState.FAILED, TrialState.CANCELLED)


@dataclass(frozen=True)
class Extension:
    """What is added.

    Attributes:
        trials: that the sampler may propose, beyond those that there are.
        wall_time_s: for the extension alone; None: as long as the spec gives a search, counted from now.
    """

    trials: int
    wall_time_s: float | None = None


def extend(session: Session, search: Search, wanted: Extension, key: str | None, body_digest: str) -> None:
    """Have a search that is over run again, with its history. `search` must be locked.

    Trials that failed or were dropped are run again, everything else stays: trials, finalists, exports, refinements.
    The same key and body once more change nothing.

    Raises:
        StateConflictError: it is not over, or nothing was ever prepared for it.
        IdempotencyKeyReusedError: the key came with another body.
        InvalidRequestError: it would have more trials than a search can have.
    """
    if _is_repeat(search, key, body_digest):
        return
    _check_state(search)
    trials = _count_searched(session, search.id) + wanted.trials
    if trials > MOST_TRIALS:
        message = f"the search would have {trials:,} trials; it can have {MOST_TRIALS:,}"
        raise InvalidRequestError(message, faults=[Fault("/trials", message)])
    repeated = _queue_again(session, search.id)
    search.spec = {**search.spec, "budget": {**search.spec["budget"], "trials": trials}}
    search.extended_at = utc_now()
    search.extensions = [*search.extensions, _noted(search, wanted, key, body_digest)]
    search.problem, search.finished_at = None, None
    search.warnings = [warning for warning in search.warnings if warning != EMPTY_FRONT]
    again = f"; {counted(repeated, 'trial')} once more" if repeated else ""
    enter(session, search, SearchState.RUNNING, f"extended by {counted(wanted.trials, 'trial')}{again}")
    send_after_commit(session, TaskName.PLAN, search.id)


def _is_repeat(search: Search, key: str | None, body_digest: str) -> bool:
    made = None if key is None else next((one for one in search.extensions if one["key"] == key), None)
    if made is not None and made["body_digest"] != body_digest:
        raise IdempotencyKeyReusedError("it extended this search by something else; use a new key for a new extension")
    return made is not None


def _check_state(search: Search) -> None:
    if not search.state.is_final:
        detail = f"the search is {search.state}; it can be extended once it is over"
        raise StateConflictError(detail, extra={"state": str(search.state)})
    if search.base_key is None:
        detail = "the search ended before its network was prepared: there is nothing to go on from; submit it anew"
        raise StateConflictError(detail, extra={"state": str(search.state)})


def _count_searched(session: Session, search_id: str) -> int:
    """The trials that count against the budget, as the planner counts them."""
    counting = (Trial.search_id == search_id, Trial.baseline.is_(False), Trial.obtained != Obtained.INHERITED)
    return session.scalar(select(func.count()).where(*counting)) or 0


def _queue_again(session: Session, search_id: str) -> int:
    """Have trials wait that failed or were dropped, as if they were new; returns how many.

    What a device told of them stays known, as a figure of its workload: of the trial there will be a new one.
    """
    again = (Trial.search_id == search_id, Trial.state.in_(_TO_REPEAT))
    ids = select(Trial.id).where(*again)
    session.execute(_quietly(update(Measurement).where(Measurement.trial_id.in_(ids)).values(trial_id=None)))
    session.execute(_quietly(delete(Residual).where(Residual.trial_id.in_(ids))))
    fresh: dict[str, Any] = {"state": str(TrialState.QUEUED), "attempt": 0, "reason": ""}
    fresh |= {"values": {}, "details": {}, "sources": {}}
    fresh |= dict.fromkeys(("published_at", "started_at", "finished_at", "finish_number"))
    return len(session.scalars(_quietly(update(Trial).where(*again).values(fresh).returning(Trial.id))).all())


def _quietly(statement: Any) -> Any:
    """Rows that the session has loaded are not looked at: it has none of these."""
    return statement.execution_options(synchronize_session=False)


def _noted(search: Search, wanted: Extension, key: str | None, body_digest: str) -> dict[str, Any]:
    assert search.extended_at is not None
    return {
        "at": search.extended_at.isoformat(),
        "key": key,
        "body_digest": body_digest,
        "trials": wanted.trials,
        "wall_time_s": wanted.wall_time_s,
        "evaluator_s": search.evaluator_s,
    }


def wall_time_s_of(search: Search, budget: BudgetSpec) -> float | None:
    """How long it may take since it began, or was extended last; None if as long as it likes."""
    extended: float | None = search.extensions[-1].get("wall_time_s") if search.extensions else None
    return budget.wall_time_s if extended is None else extended


def evaluator_s_since(search: Search) -> float:
    """Seconds that evaluators have worked on trials since the search began, or was extended last."""
    before = search.extensions[-1].get("evaluator_s", 0.0) if search.extensions else 0.0
    return search.evaluator_s - float(before)
