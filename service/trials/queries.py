"""Reads trials: by page, by number, and how many there are of which kind."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session, defer

from search_spaces.rungs import Ended, Standing, objectives_of, stand
from search_spaces.spec import SearchSpec
from service.errors import NotFoundError
from service.models import Finalist, Rung, Search, Trial
from service.states import Obtained, TrialState

WITHOUT_DETAILS = (defer(Trial.details, raiseload=True), defer(Finalist.details, raiseload=True))
"""Query options: the details of thousands of trials are long, and seldom wanted."""


@dataclass(frozen=True)
class Progress:
    """How many trials there are of which kind, the uniform baseline included.

    Attributes:
        total: the baseline, the inherited ones and the budget; of a search that is over, the trials that there are.
        done: those that ended, in whatever way.
        reused: those that another search's trial has answered, baseline included.
        inherited: those that were taken over, which count against no budget.
    """

    total: int
    done: int
    queued: int
    running: int
    succeeded: int
    infeasible: int
    stopped: int
    failed: int
    cancelled: int
    baseline_total: int
    baseline_done: int
    reused: int
    inherited: int


def progress_of(session: Session, searches: Sequence[Search]) -> dict[str, Progress]:
    """The progress of each search, by id, in one query."""
    counts: dict[str, Counter[_TrialKind]] = defaultdict(Counter)
    kinds = (Trial.search_id, Trial.state, Trial.baseline, Trial.obtained)
    query = select(*kinds, func.count()).where(Trial.search_id.in_([search.id for search in searches]))
    for search_id, state, baseline, obtained, count in session.execute(query.group_by(*kinds)):
        counts[search_id][TrialState(state), baseline, Obtained(obtained)] = count
    return {search.id: _progress(search, counts[search.id]) for search in searches}


def standing_of(session: Session, search: Search) -> Standing | None:
    """What the search's trials have been worth at their steps and in the end; None if it has no steps but the last."""
    spec = SearchSpec.model_validate(search.spec)
    if spec.evaluation.rungs is None:
        return None
    at_steps: dict[int, dict[int, list[float]]] = defaultdict(dict)
    rows = select(Rung.trial_id, Rung.number, Rung.values).where(Rung.search_id == search.id)
    for trial_id, number, values in session.execute(rows):
        at_steps[trial_id][number - 1] = [values[objective.metric] for objective in spec.objectives]
    wanted = (Trial.id, Trial.state, Trial.values, Trial.baseline, Trial.obtained, Trial.rung, Trial.evaluator_s)
    over = select(*wanted).where(Trial.search_id == search.id, Trial.finish_number.is_not(None))
    trials = []
    for trial_id, state, values, is_baseline, obtained, rung, seconds in session.execute(
        over.order_by(Trial.finish_number)
    ):
        known = objectives_of(values, spec.objectives) if state == TrialState.SUCCEEDED else None
        trials.append(
            Ended(
                at_steps=at_steps[trial_id],
                full=None if known is None else list(known.values()),
                stopped_at=None if rung is None else rung - 1,
                seconds=seconds,
                is_own=not is_baseline and obtained == Obtained.EVALUATED,
            )
        )
    return stand(trials, len(spec.evaluation.rungs.steps))


def list_trials(
    session: Session, search_id: str, *, limit: int, after: int = -1, state: TrialState | None = None
) -> list[tuple[Trial, Finalist | None]]:
    """By number, each with its confirmation if there is one; without the details."""
    query = (
        select(Trial, Finalist)
        .outerjoin(Finalist, Finalist.trial_id == Trial.id)
        .where(Trial.search_id == search_id, Trial.number > after)
        .options(*WITHOUT_DETAILS)
        .order_by(Trial.number)
        .limit(limit)
    )
    if state is not None:
        query = query.where(Trial.state == str(state))
    return [(trial, finalist) for trial, finalist in session.execute(query)]


def get_trial(session: Session, search_id: str, number: int) -> tuple[Trial, Finalist | None]:
    """Raises `NotFoundError` when the search has no such trial."""
    query = select(Trial, Finalist).outerjoin(Finalist, Finalist.trial_id == Trial.id)
    row = session.execute(query.where(Trial.search_id == search_id, Trial.number == number)).one_or_none()
    if row is None:
        raise NotFoundError(f"search {search_id} has no trial {number}")
    return row[0], row[1]


_TrialKind = tuple[TrialState, bool, Obtained]
"""State, whether it is of the baseline, and how it came by its outcome."""


def _progress(search: Search, counts: Mapping[_TrialKind, int]) -> Progress:
    def count(*states: TrialState, baseline: bool | None = None, obtained: Obtained | None = None) -> int:
        return sum(
            number
            for (state, is_base, how), number in counts.items()
            if (not states or state in states) and baseline in (None, is_base) and obtained in (None, how)
        )

    final = tuple(state for state in TrialState if state.is_final)
    baseline_total, inherited = count(baseline=True), count(obtained=Obtained.INHERITED)
    planned = baseline_total + inherited + int(search.spec["budget"]["trials"])
    return Progress(
        total=count() if search.state.is_final else planned,
        done=count(*final),
        queued=count(TrialState.QUEUED),
        running=count(TrialState.RUNNING),
        succeeded=count(TrialState.SUCCEEDED),
        infeasible=count(TrialState.INFEASIBLE),
        stopped=count(TrialState.STOPPED),
        failed=count(TrialState.FAILED),
        cancelled=count(TrialState.CANCELLED),
        baseline_total=baseline_total,
        baseline_done=count(*final, baseline=True),
        reused=count(obtained=Obtained.REUSED),
        inherited=inherited,
    )
