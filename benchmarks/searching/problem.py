"""A search on a recorded table: a look-up instead of an evaluation, and a true front to compare with.

How much a set of designs is worth is its hypervolume against one fixed point: accuracy by chance (0.1) at the cost of
the design that nothing is taken from, w8a8 throughout. Accuracy counts from 0 to 1, cost as a share of that design's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import moocore
import numpy as np
from numpy.typing import NDArray

from benchmarks.searching.subject import DEVICE, DOCUMENT, enumerate_space, space_of
from benchmarks.searching.table import Table
from search_spaces.batch_costs import BatchCosts
from search_spaces.batch_shapes import Integers
from search_spaces.budgets import budgets_of, with_budgets
from search_spaces.foreseen import ForeseenLimits, closed_form_device
from search_spaces.objectives import Metric, TrialState
from search_spaces.pareto import violations
from search_spaces.parse import parse_spec
from search_spaces.samplers import Proposal, ToldTrial
from search_spaces.space import Indices, Space
from search_spaces.spec import SearchSpec

Numbers = NDArray[np.float64]

CHANCE = 0.1
"""Accuracy of guessing one of ten classes: what the reference point has."""
WHOLE = 1.0
"""Cost of the design that nothing is taken from, by which costs are divided: what the reference point has."""

SIZE = {"metric": "size_bytes", "direction": "minimize"}
LATENCY = {"metric": "latency_s", "direction": "minimize", "device": DEVICE}
HALF_SIZE = {"metric": "size_bytes", "at_most": 0.5, "relative_to": "w8a8"}
AIMS: Mapping[str, Mapping[str, Any]] = {
    "size": {"objective": SIZE},
    "latency": {"objective": LATENCY},
    "latency at half the size": {"objective": LATENCY, "budget": HALF_SIZE},
}
"""The problems, by name: what is minimised beside accuracy being maximised, and what limits it."""


class Searched(Protocol):
    """What a sampler is played on."""

    @property
    def spec(self) -> SearchSpec:
        """Of the search."""

    @property
    def space(self) -> Space:
        """Of its designs."""

    def values_of(self, indices: Sequence[int]) -> Mapping[str, float]:
        """Of one design, by metric: this is an evaluation."""

    def tell(self, number: int, proposal: Proposal, *, baseline: bool = False) -> ToldTrial:
        """The trial as its worker would end it."""

    def baseline(self) -> list[ToldTrial]:
        """The uniform sweep, which comes before every search and outside of its budget."""

    def baseline_indices(self) -> list[Indices]:
        """Of those that keep the limits."""


@dataclass(frozen=True, eq=False)
class Problem:
    """One search on the table.

    Attributes:
        spec: of the search, with limits in the place of its budgets; sampler, seed and number of trials are put in.
        space: of the table.
        values: of each design by metric, (designs,): accuracy, and all that is told without any work.
        keeps: whether each design keeps the limits, (designs,).
    """

    name: str
    spec: SearchSpec
    space: Space
    values: Mapping[str, Numbers]
    keeps: NDArray[np.bool_]

    @cached_property
    def weights(self) -> Integers:
        """That choice indices are multiplied with to get the number of a design, (decisions,)."""
        levels = [len(decision.choices) for decision in self.space.decisions]
        return np.cumprod([1, *levels[:0:-1]])[::-1].astype(np.int64)

    @cached_property
    def points(self) -> Numbers:
        """Of each design what is minimised: 1 - accuracy, and the cost as a share; (designs, 2)."""
        cost = self.values[self.spec.objectives[1].metric]
        points: Numbers = np.stack([1 - self.values[Metric.ACCURACY], cost / cost[0]], axis=1)
        return points

    @cached_property
    def true_front(self) -> Integers:
        """Numbers of the designs that no design within the limits dominates."""
        counted = np.flatnonzero(self._counts)
        front: Integers = counted[moocore.is_nondominated(self.points[counted])]
        return front

    @cached_property
    def best_volume(self) -> float:
        """The hypervolume of the true front: no search can have more."""
        return self.volume(self.true_front)

    def volume(self, numbers: Integers) -> float:
        """The hypervolume of designs; those that miss a limit, or failed, add nothing."""
        points = self.points[numbers[self._counts[numbers]]]
        inside = points[(points < [1 - CHANCE, WHOLE]).all(axis=1)]
        return float(moocore.hypervolume(inside, ref=[1 - CHANCE, WHOLE])) if len(inside) else 0.0

    @cached_property
    def _counts(self) -> NDArray[np.bool_]:
        return self.keeps & np.isfinite(self.values[Metric.ACCURACY])

    def number_of(self, indices: Sequence[int]) -> int:
        """The place of a design in the table."""
        return int(np.dot(indices, self.weights))

    def values_of(self, indices: Sequence[int]) -> dict[str, float]:
        place = self.number_of(indices)
        return {metric: float(column[place]) for metric, column in self.values.items()}

    def tell(self, number: int, proposal: Proposal, *, baseline: bool = False) -> ToldTrial:
        """The trial as its worker would end it: what misses a limit by design alone is not scored.

        Args:
            number: of the trial.
            proposal: that is looked up.
            baseline: whether it belongs to the uniform sweep.
        """
        values = self.values_of(self.space.indices_of(proposal.design))
        missed = violations({m: v for m, v in values.items() if m != Metric.ACCURACY}, self.spec.limits)
        state = TrialState.SUCCEEDED
        if missed or not np.isfinite(values[Metric.ACCURACY]):
            state = TrialState.INFEASIBLE if missed else TrialState.FAILED
            del values[Metric.ACCURACY]
        return ToldTrial(number, proposal.design, state, values, missed, dict(proposal.memo), baseline)

    def baseline(self) -> list[ToldTrial]:
        """The uniform sweep, which comes before every search and outside of its budget."""
        return [self.tell(n, Proposal(design, {}), baseline=True) for n, design in enumerate(self.space.uniform)]

    def baseline_indices(self) -> list[Indices]:
        """Of those that keep the limits."""
        rows = [self.space.indices_of(design) for design in self.space.uniform]
        return [row for row in rows if self.keeps[self.number_of(row)]]


def additive_r2(space: Space, values: Numbers) -> float:
    """How much of what varies in `values`, (designs,), the best sum over decisions explains: 1 is all of it."""
    is_told = np.isfinite(values)
    chosen = [np.eye(len(one.choices))[:, 1:] for one in space.decisions]
    columns = [eye[row] for eye, row in zip(chosen, enumerate_space(space)[is_told].T, strict=True)]
    told = values[is_told] - values[is_told].mean()
    table = np.concatenate([np.ones((len(told), 1)), *columns], axis=1)
    left = told - table @ np.linalg.lstsq(table, told, rcond=None)[0]
    return float(1 - (left**2).sum() / (told**2).sum())


def make_problem(name: str, table: Table) -> Problem:
    """One of `AIMS` on a table of `subject`'s space."""
    aim = AIMS[name]
    changes = {
        "objectives": [DOCUMENT["objectives"][0], aim["objective"]],
        "budget_limits": [aim["budget"]] if "budget" in aim else [],
    }
    # Of the device that the table's spec names the space has its channel counts, whether or not a problem asks for it.
    space = space_of(parse_spec(DOCUMENT))
    submitted = parse_spec({**DOCUMENT, **changes})
    spec = with_budgets(submitted, budgets_of(submitted, space.network))
    return of_table(name, spec, space, table.accuracy)


def of_table(name: str, spec: SearchSpec, space: Space, accuracy: Numbers) -> Problem:
    """A problem of what is recorded of every design of a space, (designs,), in the order of its enumeration."""
    rows = enumerate_space(space)
    costs = BatchCosts(space, closed_form_device(spec))
    told = costs(rows, sorted(costs.metrics))
    return Problem(name, spec, space, {Metric.ACCURACY: accuracy, **told}, ForeseenLimits(space, spec).keep(rows))
