"""The nearest design that keeps its limits, by what its decisions are thought to cost in quality.

AMC clips an agent's actions so that the later layers can still make up for them; HAQ lowers bits from the last layer to
the first, round after round, until the budget is met. Both ask what saves and not what it costs. Here a design that is
over its budget goes down the steps that lose least for what they save, wherever they are, and then takes back what the
budget leaves room for. Costs are always those of whole designs: no estimate decides what keeps a limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search_spaces.foreseen import ForeseenLimits
from search_spaces.space import Indices

Numbers = NDArray[np.float64]

ROUNDS = 12
"""Savings are told anew from where a round ends: of layers that share channels they do not add up."""
RESTARTS = 12


@dataclass(frozen=True, slots=True)
class _Step:
    """From one choice of a decision to another; `ratio` is what it loses for what it saves."""

    decision: int
    choice: int
    ratio: float


class Projection:
    """Repairs designs of one space. `levels` is the number of choices of each decision."""

    def __init__(self, levels: Sequence[int], limits: ForeseenLimits) -> None:
        self._levels = tuple(levels)
        self._limits = limits
        self._cheapest: Indices | None = None

    def __call__(self, indices: Indices, losses: Sequence[Numbers]) -> Indices | None:
        """`indices` where it keeps the limits, else a design near it that does; None where none was found.

        Args:
            indices: of a design.
            losses: of each decision what each choice costs in quality, see `search_spaces.sensitivity`.
        """
        if self._keeps(indices):
            return indices
        place = indices
        for _ in range(ROUNDS):
            steps = self._steps(place, losses)
            if not steps:
                break
            place = self._descend(place, steps)
            if self._keeps(place):
                return self.take_back(indices, place, losses)
        cheapest = self.cheapest()
        return self.take_back(indices, cheapest, losses) if self._keeps(cheapest) else None

    def cheapest(self) -> Indices:
        """The design that misses the limits least, or keeps them best, that single changes lead to."""
        if self._cheapest is None:
            generator = np.random.default_rng(0)
            starts = [tuple(level - 1 for level in self._levels), (0,) * len(self._levels)]
            starts += [tuple(map(int, generator.integers(self._levels))) for _ in range(RESTARTS)]
            found: list[tuple[float, Indices]] = []
            for start in starts:
                found.append(self._lowest_from(start))
                if found[-1][0] <= 0:
                    break
            self._cheapest = min(found)[1]
        return self._cheapest

    def _keeps(self, indices: Indices) -> bool:
        return bool(self._limits.keep([indices])[0])

    def _lowest_from(self, place: Indices) -> tuple[float, Indices]:
        """Down to where no single change lowers the worst miss; how much that is, and where."""
        worst = self._worst([place])[0]
        while worst > 0:
            beside = self._neighbours(place)
            if not beside:
                break
            misses = self._worst(beside)
            best = int(np.argmin(misses))
            if misses[best] >= worst:
                break
            worst, place = misses[best], beside[best]
        return float(worst), place

    def _worst(self, rows: Sequence[Indices]) -> Numbers:
        worst: Numbers = self._limits.excess(rows).max(axis=1, initial=-1.0)
        return worst

    def _neighbours(self, place: Indices) -> list[Indices]:
        """All designs that differ in one decision."""
        return [
            _changed(place, decision, choice)
            for decision, level in enumerate(self._levels)
            for choice in range(level)
            if choice != place[decision]
        ]

    def _steps(self, place: Indices, losses: Sequence[Numbers]) -> list[_Step]:
        """What saves of what is over its limit, cheapest in quality first; of each decision the lower convex hull."""
        beside = self._neighbours(place)
        if not beside:
            return []
        here = self._limits.excess([place])[0]
        over = here > 0
        savings = here[over].sum() - self._limits.excess(beside)[:, over].sum(axis=1)
        by_decision: dict[int, list[tuple[float, float, int]]] = {}
        for row, saving in zip(beside, savings, strict=True):
            decision = next(d for d, choice in enumerate(row) if choice != place[d])
            if saving > 0:
                loss = float(losses[decision][row[decision]] - losses[decision][place[decision]])
                by_decision.setdefault(decision, []).append((float(saving), loss, row[decision]))
        steps = [step for decision, points in by_decision.items() for step in _hull(decision, points)]
        return sorted(steps, key=lambda step: (step.ratio, step.decision))

    def _descend(self, place: Indices, steps: Sequence[_Step]) -> Indices:
        """As many of the steps as it takes, found by bisection; all of them where they do not suffice."""
        low, high = 0, len(steps)
        while low < high:
            middle = (low + high) // 2
            if self._keeps(_after(place, steps[:middle])):
                high = middle
            else:
                low = middle + 1
        return _after(place, steps[:high])

    def take_back(self, wanted: Indices, place: Indices, losses: Sequence[Numbers]) -> Indices:
        """Give a place that keeps the limits what was wanted, or as much of it as fits, what was lost most first."""
        gains = []
        for decision, (end, start) in enumerate(zip(wanted, place, strict=True)):
            between = range(min(start, end), max(start, end) + 1)
            lost = losses[decision]
            gains += [(float(lost[start] - lost[c]), decision, c) for c in between if lost[c] < lost[start]]
        alone = self._limits.keep([_changed(place, decision, choice) for _, decision, choice in gains])
        fitting = [gain for gain, keeps in zip(gains, alone, strict=True) if keeps]
        taken: set[int] = set()
        for _, decision, choice in sorted(fitting, key=lambda gain: (-gain[0], gain[1])):
            row = _changed(place, decision, choice)
            if decision not in taken and self._keeps(row):
                taken.add(decision)
                place = row
        return place


def _changed(place: Indices, decision: int, choice: int) -> Indices:
    return (*place[:decision], choice, *place[decision + 1 :])


def _after(place: Indices, steps: Sequence[_Step]) -> Indices:
    changed = list(place)
    for step in steps:
        changed[step.decision] = step.choice
    return tuple(changed)


def _hull(decision: int, points: Sequence[tuple[float, float, int]]) -> list[_Step]:
    """The steps along the lower convex hull of (saving, loss), from where nothing is saved: ratios ascend."""
    steps: list[_Step] = []
    saving, loss = 0.0, 0.0
    left = sorted(points)
    while left:
        ratios = [(other_loss - loss) / (other_saving - saving) for other_saving, other_loss, _ in left]
        best = int(np.argmin(ratios))
        saving, loss, choice = left[best]
        steps.append(_Step(decision, choice, ratios[best]))
        left = [point for point in left[best + 1 :] if point[0] > saving]
    return steps
