"""Allowed state changes of searches, and of the rows that a worker claims. One dictionary each."""

from __future__ import annotations

from enum import StrEnum

from search_spaces.objectives import TrialState

__all__ = ["SEARCH_TRANSITIONS", "EndReason", "EventKind", "JobState", "Obtained", "SearchState", "TrialState"]


class SearchState(StrEnum):
    """The life of a search. The last three are final, unless it is extended: then it is running again."""

    QUEUED = "queued"  # stored; waits for a worker, or for its device to be announced
    PREPARING = "preparing"  # a worker trains or loads the base
    RUNNING = "running"  # trials are planned and run
    PAUSED = "paused"  # open trials end, none is added
    CONFIRMING = "confirming"  # finalists are fine-tuned and scored on `confirm`
    CANCELLING = "cancelling"  # asked for; shown until every process is gone
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return not SEARCH_TRANSITIONS[self]

    @property
    def is_over(self) -> bool:
        """Whether its work is of no use any more: what runs for it is to be stopped, what waits is not begun."""
        return self.is_final or self is SearchState.CANCELLING


class EndReason(StrEnum):
    """Why a search asks for no more trials. Finalists may still be confirmed after that."""

    TRIALS = "trials"  # all that the budget allows have ended
    WALL_TIME = "wall_time"  # `budget.wall_time_s` is spent
    EVALUATOR_TIME = "evaluator_time"  # `budget.evaluator_s` is spent
    PLATEAU = "plateau"  # the front has stopped growing, by `budget.plateau`
    EXHAUSTED = "exhausted"  # the sampler has no further design
    FAILURES = "failures"  # more than `budget.failure_share` of the trials failed
    FAILED = "failed"  # the search itself failed, see its problem
    CANCELLED = "cancelled"


class JobState(StrEnum):
    """The life of a claimable row that is no trial: preparing a base, confirming a finalist, an export."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self not in (JobState.QUEUED, JobState.RUNNING)


class Obtained(StrEnum):
    """How a trial came by its outcome. Only what this search has evaluated itself can answer for others."""

    EVALUATED = "evaluated"  # or is to be
    REUSED = "reused"  # a trial of another search had the same design, tried in the same way
    INHERITED = "inherited"  # taken over as the search began, outside of its budget


class EventKind(StrEnum):
    """What an event tells. Its data is JSON of the form given here."""

    STATE = "state"  # {state, reason, end_reason}: the search changed its state; the last once trials have ended
    PROGRESS = "progress"  # {stage, share, message}: of a long step, such as training the base
    TRIAL = "trial"  # {number, state, baseline, attempt, values, sources, reason, obtained, origin, rung}
    FINALIST = "finalist"  # {number, state, values, reason}: a trial is being confirmed, or was
    EXPORT = "export"  # {id, number, state, reason}
    REFINEMENT = "refinement"  # {id, number, state, values, reason}
    NOTE = "note"  # {message}: for people


_S = SearchState
SEARCH_TRANSITIONS: dict[SearchState, frozenset[SearchState]] = {
    _S.QUEUED: frozenset({_S.PREPARING, _S.PAUSED, _S.CANCELLING, _S.FAILED}),
    _S.PREPARING: frozenset({_S.RUNNING, _S.PAUSED, _S.CANCELLING, _S.FAILED}),
    _S.RUNNING: frozenset({_S.PAUSED, _S.CONFIRMING, _S.SUCCEEDED, _S.CANCELLING, _S.FAILED}),
    _S.PAUSED: frozenset({_S.QUEUED, _S.PREPARING, _S.RUNNING, _S.CANCELLING, _S.FAILED}),
    _S.CONFIRMING: frozenset({_S.SUCCEEDED, _S.CANCELLING, _S.FAILED}),
    _S.CANCELLING: frozenset({_S.CANCELLED}),
    _S.SUCCEEDED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset(),
}
