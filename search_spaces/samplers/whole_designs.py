"""The design of least loss at a cost, of one space under its limits: by an integer program, and by descending.

It must not know what was tried, nor how losses are told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from search_spaces.batch_costs import Numbers
from search_spaces.cost_tables import cost_tables
from search_spaces.foreseen import ForeseenLimits
from search_spaces.projection import Projection
from search_spaces.samplers.integer_program import IntegerProgram, OutOfTimeError, Range
from search_spaces.space import Indices
from search_spaces.spec import LimitSpec

ROUNDS = 2
"""Programs on costs that tables tell only nearly, each with its budget moved by the error of the one before."""


class WholeDesigns:
    """What a program can be told of costs is made once.

    Where tables tell a cost exactly, a program's design is the one. Elsewhere, or where the solver takes too long, it
    is the better of the program's and of what `Projection` finds on its way down, both given back what fits.
    """

    def __init__(
        self, levels: Sequence[int], limits: ForeseenLimits, metrics: Sequence[str], device: str | None
    ) -> None:
        """`metrics` are the costs that are asked for, of those that `limits.costs` tells; `device` is the spec's."""
        self._levels = tuple(levels)
        self._limits = limits
        self._device = device
        wanted = dict.fromkeys([*metrics, *(limit.metric for limit in limits.limits)])
        summed = [metric for metric in wanted if metric in limits.costs.sums]
        self._tables = cost_tables(limits.costs, self._levels, summed) if summed else None
        self._program = None if self._tables is None else IntegerProgram(self._levels, self._tables)
        self._ranges = _ranges(limits.limits)

    @property
    def variables(self) -> int:
        """Of the integer program: what it takes time by."""
        return 0 if self._program is None else self._program.variables

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
        most = LimitSpec(metric=metric, max=budget, device=self._device)
        projection = Projection(self._levels, self._limits.beside(most))
        found = [projection(design, losses) for design in self._candidates(metric, budget, losses)]
        kept = [design for design in found if design is not None]
        if not self._is_exact(metric):
            wanted = _least(losses)
            kept = [projection.take_back(wanted, design, losses) for design in kept]
        return min(kept, key=lambda design: (_loss(design, losses), self.cost(design, metric)), default=None)

    def _candidates(self, metric: str, budget: float, losses: Sequence[Numbers]) -> Iterator[Indices]:
        is_exact, aim = self._is_exact(metric), budget
        try:
            for _ in range(1 if is_exact else ROUNDS):
                found = self._by_program(metric, aim, losses)
                if found is None:
                    break
                yield found
                aim = budget + self._estimate(found, metric) - self.cost(found, metric)
        except OutOfTimeError:
            is_exact = False
        if not is_exact:
            yield _least(losses)

    def _by_program(self, metric: str, budget: float, losses: Sequence[Numbers]) -> Indices | None:
        """None also where a program knows nothing of the cost."""
        if self._program is None or self._tables is None or metric not in self._tables.metrics:
            return None
        ranges = {name: one for name, one in self._ranges.items() if name in self._tables.metrics}
        least = ranges.get(metric, Range()).least
        most = budget if np.isfinite(budget) else ranges.get(metric, Range()).most
        return self._program(losses, {**ranges, metric: Range(least, most)}, metric)

    def _is_exact(self, metric: str) -> bool:
        return self._tables is not None and metric in self._tables.exact

    def _estimate(self, design: Indices, metric: str) -> float:
        assert self._tables is not None, "a program has found the design"
        return float(self._tables([design])[0, self._tables.metrics.index(metric)])


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
