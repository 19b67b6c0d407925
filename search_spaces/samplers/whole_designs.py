"""The design of least loss at a cost, of one space under its limits.

It must not know what was tried, nor how losses are told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod

import numpy as np

from search_spaces.batch_costs import Numbers
from search_spaces.cost_tables import CostTables, Range, cost_tables
from search_spaces.foreseen import ROUNDING, ForeseenLimits
from search_spaces.projection import Projection
from search_spaces.samplers.enumeration import MOST_DESIGNS, Enumeration
from search_spaces.samplers.integer_program import IntegerProgram, OutOfTimeError
from search_spaces.space import Indices
from search_spaces.spec import LimitSpec

ROUNDS = 2
"""Programs on costs that tables tell only nearly, each with its budget moved by the error of the one before."""


class WholeDesigns:
    """A small space is enumerated once; of another, what an integer program can be told of costs is made once.

    The better is taken of the program's design and of what `Projection` finds on its way down, which wins only where
    the solver took too long, or where tables tell a cost only nearly. There both are given back what fits.
    """

    def __init__(
        self, levels: Sequence[int], limits: ForeseenLimits, metrics: Sequence[str], device: str | None
    ) -> None:
        """`metrics` are the costs that are asked for, of those that `limits.costs` tells; `device` is the spec's."""
        self._levels = tuple(levels)
        self._limits = limits
        self._device = device
        self._ranges = _ranges(limits.limits)
        wanted = list(dict.fromkeys([*metrics, *self._ranges]))
        summed = [metric for metric in wanted if metric in limits.costs.sums]
        self._tables: CostTables | None = None
        self._program: Enumeration | IntegerProgram | None = None
        self.variables = 0
        """Of the integer program: what it takes time by."""
        if prod(self._levels) <= MOST_DESIGNS:
            self._program = Enumeration(self._levels, limits.costs, wanted)
            self._known = self._exact = frozenset(wanted)
        elif summed:
            self._tables = cost_tables(limits.costs, self._levels, summed)
            self._program = IntegerProgram(self._levels, self._tables)
            self._known, self._exact = frozenset(summed), self._tables.exact
            self.variables = self._program.variables
        else:
            self._known = self._exact = frozenset()

    def cost(self, design: Indices, metric: str) -> float:
        return float(self._limits.costs([design], [metric])[metric][0])

    def span(self, metric: str, whole: Indices) -> tuple[float, float]:
        """The least that designs within the limits cost, and the most that it is of use to spend.

        Args:
            metric: of the cost.
            whole: the design that loses nothing.
        """
        most = min(self.cost(whole, metric), self._ranges.get(metric, Range()).most)
        cheapest = tuple(level - 1 for level in self._levels)
        try:
            nothing = [np.zeros(level) for level in self._levels]
            cheapest = self._by_program(metric, np.inf, nothing) or cheapest
        except OutOfTimeError:
            pass
        least = self.cost(cheapest, metric)
        return least, max(least, most)

    def at(self, metric: str, budget: float, losses: Sequence[Numbers]) -> Indices | None:
        """The design of least summed loss within the limits that costs no more than the budget; None if there is none.

        Args:
            metric: of the cost.
            budget: in the metric's own unit.
            losses: of each decision what each choice loses.
        """
        # What a device tells keeps a limit by so much; a budget is none, and what costs all of it is within.
        most = LimitSpec(metric=metric, max=budget * (1 + 2 * ROUNDING), device=self._device)
        projection = Projection(self._levels, self._limits.beside(most))
        found = [projection(design, losses) for design in self._candidates(metric, budget, losses)]
        kept = [design for design in found if design is not None]
        if metric not in self._exact:
            wanted = _least(losses)
            kept = [projection.take_back(wanted, design, losses) for design in kept]
        return min(kept, key=lambda design: (_loss(design, losses), self.cost(design, metric)), default=None)

    def _candidates(self, metric: str, budget: float, losses: Sequence[Numbers]) -> Iterator[Indices]:
        is_exact, aim = metric in self._exact, budget
        try:
            for _ in range(1 if is_exact else ROUNDS):
                found = self._by_program(metric, aim, losses)
                if found is None:
                    break
                yield found
                if self._tables is not None:
                    estimate = float(self._tables([found])[0, self._tables.metrics.index(metric)])
                    aim = budget + estimate - self.cost(found, metric)
        except OutOfTimeError:
            pass
        if not isinstance(self._program, Enumeration):
            yield _least(losses)

    def _by_program(self, metric: str, budget: float, losses: Sequence[Numbers]) -> Indices | None:
        """None also where a program knows nothing of the cost."""
        if self._program is None or metric not in self._known:
            return None
        ranges = {name: one for name, one in self._ranges.items() if name in self._known}
        least = ranges.get(metric, Range()).least
        most = budget if np.isfinite(budget) else ranges.get(metric, Range()).most
        return self._program(losses, {**ranges, metric: Range(least, most)}, metric)


def _ranges(limits: Sequence[LimitSpec]) -> Mapping[str, Range]:
    found: dict[str, Range] = {}
    for limit in limits:
        before = found.get(limit.metric, Range())
        least = before.least if limit.min is None else max(before.least, limit.min)
        most = before.most if limit.max is None else min(before.most, limit.max)
        found[limit.metric] = Range(least, most)
    return found


def _least(losses: Sequence[Numbers]) -> Indices:
    return tuple(int(np.argmin(loss)) for loss in losses)


def _loss(design: Indices, losses: Sequence[Numbers]) -> float:
    return float(sum(loss[choice] for loss, choice in zip(losses, design, strict=True)))
