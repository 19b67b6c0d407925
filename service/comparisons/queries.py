"""Which searches ask the same question, and what each has found by when. Nothing of it is stored.

A question is what designs are drawn from and judged by. Sampler, seed, budget and cheap steps are ways to answer it.
All hypervolumes are against one reference point and told as a share of what all have found together.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from search_spaces import pareto
from search_spaces.spec import ObjectiveSpec, SearchSpec
from service.models import Search, Trial
from service.states import Obtained, TrialState

MOST = 50
"""Searches that are compared, at most: the newest."""
MOST_READ = 500
"""Newest searches on the same data that are looked at for the question."""
STEPS = 40
"""Of a curve."""

Values = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Step:
    """What a search had found after so many of its sampler's trials, and so many seconds of evaluators."""

    trials: int
    evaluator_s: float
    share: float


@dataclass(frozen=True)
class Standing:
    """One search among others.

    Attributes:
        trials: of the sampler, that have ended.
        inherited: that it began with: what it found is not its sampler's alone.
        evaluator_s: seconds of evaluators, the baseline's too. What another search's trial has answered counts with the
            time that it took there.
        share: of the hypervolume that all searches have found together.
        share_at_common: the same after as many trials as every search has had.
        on_joint_front: its designs that no other search's design dominates.
        curve: from the baseline on.
    """

    search: Search
    trials: int
    inherited: int
    evaluator_s: float
    share: float
    share_at_common: float
    on_joint_front: int
    curve: Sequence[Step]


@dataclass(frozen=True)
class Comparison:
    """Searches side by side.

    Attributes:
        standings: those with the most found after `common_trials` first.
        common_trials: that every search has had which has had any.
        reference_point: a tenth beyond the worst of the uniform baseline; empty while nothing was found.
    """

    standings: Sequence[Standing]
    common_trials: int
    reference_point: Values


def compare(session: Session, search: Search) -> Comparison:
    """A search beside the newest others that ask the same."""
    objectives = SearchSpec.model_validate(search.spec).objectives
    runs = _read(session, alike(session, search), objectives)
    common = min((run.count for run in runs if run.count), default=0)
    grid = sorted({round(step) for step in np.linspace(0, max(run.count for run in runs), STEPS + 1)} | {common})
    climbs = [_fronts(run, grid, objectives) for run in runs]
    found = [values for climb in climbs for values in climb[max(climb)]]
    if not found:
        return Comparison([_unknown(run) for run in runs], 0, {})
    uniform = [values for run in runs for values in run.uniform]
    reference = pareto.reference_point(uniform or found, objectives)
    best = [found[index] for index in pareto.front_indices(found, objectives)]
    together = pareto.hypervolume(best, objectives, reference)

    def share_of(front: Sequence[Values]) -> float:
        return pareto.hypervolume(front, objectives, reference) / together if front and together else 0.0

    standings = [
        _standing(run, {count: share_of(front) for count, front in climb.items()}, common, best)
        for run, climb in zip(runs, climbs, strict=True)
    ]
    standings.sort(key=lambda one: (-one.share_at_common, one.search.created_at))
    return Comparison(standings, common, reference)


def alike(session: Session, search: Search) -> list[Search]:
    """The search and the newest others that ask the same of the same base, the newest first."""
    same_data = Search.spec["dataset"]["name"].as_string() == search.spec["dataset"]["name"]
    newest = select(Search).where(same_data).order_by(Search.created_at.desc(), Search.id.desc()).limit(MOST_READ)
    question = question_of(SearchSpec.model_validate(search.spec))
    others = [
        other
        for other in session.scalars(newest)
        if other.id != search.id
        and (other.base_key == search.base_key or None in (other.base_key, search.base_key))  # none before it is ready
        and question_of(SearchSpec.model_validate(other.spec)) == question
    ]
    return sorted([search, *others[: MOST - 1]], key=lambda one: one.created_at, reverse=True)


def question_of(spec: SearchSpec) -> dict[str, Any]:
    """The parts of a spec that decide what a design is worth, and which there are."""
    parts = ("network", "dataset", "space", "objectives", "limits", "budget_limits", "recipe", "evaluation")
    asked = spec.model_dump(mode="json", include=set(parts))
    del asked["evaluation"]["rungs"]
    return asked


@dataclass(frozen=True)
class _Run:
    """A search's trials in the order in which they ended.

    Attributes:
        uniform: values of the baseline's designs that met the limits.
        count: trials of the sampler.
        after: of each of them, values; None of those that found none.
        seconds: of evaluators, behind each of them; first that of the baseline and of what was inherited.
    """

    search: Search
    uniform: Sequence[Values]
    inherited: Sequence[Values]
    after: Sequence[Values | None]
    seconds: Sequence[float]

    @property
    def count(self) -> int:
        return len(self.after)


def _read(session: Session, searches: Sequence[Search], objectives: Sequence[ObjectiveSpec]) -> list[_Run]:
    names = [str(objective.metric) for objective in objectives]
    columns = [Trial.values[name].as_float() for name in names]
    query = select(
        Trial.search_id, Trial.baseline, Trial.state, Trial.obtained, Trial.origin, Trial.evaluator_s, *columns
    ).where(Trial.search_id.in_([one.id for one in searches]), Trial.finish_number.is_not(None))
    by_search: dict[str, list[Row[Any]]] = defaultdict(list)
    for row in session.execute(query.order_by(Trial.finish_number)):
        by_search[row.search_id].append(row)
    elsewhere = _seconds_elsewhere(session, [row for rows in by_search.values() for row in rows])
    return [_run(search, by_search[search.id], names, elsewhere) for search in searches]


def _seconds_elsewhere(session: Session, rows: Sequence[Row[Any]]) -> dict[tuple[str, int], float]:
    """What trials took that answered for others, by search and number."""
    searches = {row.origin["search"] for row in rows if row.obtained == Obtained.REUSED and row.origin}
    query = select(Trial.search_id, Trial.number, Trial.evaluator_s).where(Trial.search_id.in_(searches))
    return {(search, number): seconds for search, number, seconds in session.execute(query)} if searches else {}


def _run(
    search: Search, rows: Sequence[Row[Any]], names: Sequence[str], elsewhere: Mapping[tuple[str, int], float]
) -> _Run:
    uniform: list[Values] = []
    inherited: list[Values] = []
    after: list[Values | None] = []
    before_s, seconds = 0.0, []
    for row in rows:
        values = _values(row, names)
        took_s = row.evaluator_s
        if row.obtained == Obtained.REUSED and row.origin:
            took_s = elsewhere.get((row.origin["search"], row.origin["trial"]), took_s)
        if row.obtained == Obtained.INHERITED or row.baseline:
            before_s += took_s
            if values is not None:
                (uniform if row.baseline else inherited).append(values)
        else:
            after.append(values)
            seconds.append(took_s)
    return _Run(search, uniform, inherited, after, list(accumulate(seconds, initial=before_s)))


def _values(row: Row[Any], names: Sequence[str]) -> Values | None:
    """Of a trial that met the limits and has all objectives."""
    values = row[-len(names) :]
    if row.state != TrialState.SUCCEEDED or any(value is None or not math.isfinite(value) for value in values):
        return None
    return dict(zip(names, values, strict=True))


def _fronts(run: _Run, grid: Sequence[int], objectives: Sequence[ObjectiveSpec]) -> dict[int, Sequence[Values]]:
    """The front of all that is known after so many trials of the sampler, by their number."""
    fronts: dict[int, Sequence[Values]] = {}
    front, before = [*run.uniform, *run.inherited], 0
    for count in [*(count for count in grid if count < run.count), run.count]:
        front = [*front, *(values for values in run.after[before:count] if values is not None)]
        front = [front[index] for index in pareto.front_indices(front, objectives)]
        fronts[count], before = front, count
    return fronts


def _standing(run: _Run, shares: Mapping[int, float], common: int, best: Sequence[Values]) -> Standing:
    """`best` is the front of all searches; what several of them have found is there for each."""
    own = {id(values) for values in run.after}
    return Standing(
        run.search,
        run.count,
        len(run.inherited),
        run.seconds[-1],
        shares[run.count],
        shares.get(common, shares[run.count]),
        sum(id(values) in own for values in best),
        [Step(count, run.seconds[count], share) for count, share in shares.items()],
    )


def _unknown(run: _Run) -> Standing:
    return Standing(run.search, run.count, len(run.inherited), run.seconds[-1], 0.0, 0.0, 0, [])
