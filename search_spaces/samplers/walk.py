"""A space as an agent walks it: its decisions one after another, in the order of the layers.

At each step the agent sees features of the layer, what the steps before saved and what those to come could, and
answers with an action in [0, 1], which becomes one of the decision's choices. It must not know how the agent learns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from search_spaces.apply import structure_of
from search_spaces.batch_costs import BatchCosts, Numbers
from search_spaces.batch_shapes import Integers
from search_spaces.design import Kind
from search_spaces.foreseen import excess_over
from search_spaces.samplers.perceptron import Floats
from search_spaces.samplers.walk_features import actions_of, static_features, steps_of
from search_spaces.space import Indices, Space
from search_spaces.spec import LimitSpec

Choose = Callable[[int, Floats], float]
"""The action, in [0, 1], for a step and its state."""


@dataclass(frozen=True, eq=False)
class Range:
    """What the designs of a space take of one metric, as far as changes that each save something lead.

    Attributes:
        cheapest, dearest: choice indices, (decisions,).
    """

    metric: str
    cheapest: Integers
    dearest: Integers
    least: float
    most: float

    @property
    def span(self) -> float:
        return (self.most - self.least) or 1.0

    @property
    def is_empty(self) -> bool:
        return not self.least < self.most

    def share(self, cost: float) -> float:
        """0 for the least that designs take, 1 for the most."""
        return (cost - self.least) / self.span


def range_of(costs: BatchCosts, levels: Sequence[int], metric: str) -> Range:
    ends = [_extreme(costs, levels, metric, sign) for sign in (1.0, -1.0)]
    least, most = costs(ends, [metric])[metric]
    return Range(metric, ends[0], ends[1], float(least), float(most))


def _extreme(costs: BatchCosts, levels: Sequence[int], metric: str, sign: float) -> Integers:
    """Where no single change lowers `sign` times the metric; all that help are made at once where they add up."""
    decisions = np.repeat(np.arange(len(levels)), levels)
    choices = np.concatenate([np.empty(0, dtype=np.int64), *map(np.arange, levels)]).astype(np.int64)
    place = np.array(levels, dtype=np.int64) - 1 if sign > 0 else np.zeros(len(levels), dtype=np.int64)
    while len(choices):
        beside = np.repeat(place[None], len(choices), axis=0)
        beside[np.arange(len(choices)), decisions] = choices
        values = sign * costs(beside, [metric])[metric]
        together = _best_of_each(values, levels, place)
        found = np.stack([place, together, beside[int(np.argmin(values))]])
        lowest = int(np.argmin(sign * costs(found, [metric])[metric]))
        if lowest == 0:
            break
        place = found[lowest]
    return place


def _best_of_each(values: Numbers, levels: Sequence[int], place: Integers) -> Integers:
    """Each decision's best choice, all others as they are; its present one where none is better."""
    found, start = place.copy(), 0
    for decision, level in enumerate(levels):
        mine = values[start : start + level]
        if mine.min() < mine[place[decision]]:
            found[decision] = int(np.argmin(mine))
        start += level
    return found


class Walk:
    """The steps of one space; decisions without a choice are none.

    Features of a state, in this order, in [0, 1] all but for rounding:
        those of `walk_features`, which no design changes;
        reduced: what the steps before saved of the metric that is walked by, as a share of what can be saved at all;
        rest: what the steps to come could save at most, likewise;
        the action that the step before came to (realised, not as the actor gave it), 1 before the first;
        what the caller adds: the targets.

    AMC's published code starts with a `rest` of weight counts and goes on with one of FLOPs, and counts depthwise
    layers in whatever comes; here both are differences of costs of whole designs, at every step.
    """

    def __init__(self, space: Space, costs: BatchCosts) -> None:
        self._costs = costs
        self._levels = tuple(len(decision.choices) for decision in space.decisions)
        structure = structure_of(space.network)
        self.columns = steps_of(space, structure)
        self.actions = [actions_of(space.decisions[column], structure) for column in self.columns]
        # AMC's least and greatest preserve ratio; HAQ's bins go from 0 to 1.
        is_ratio = [space.decisions[column].kind is Kind.CHANNELS for column in self.columns]
        self.bounds = [
            (float(own.min()), float(own.max())) if ratio else (0.0, 1.0)
            for own, ratio in zip(self.actions, is_ratio, strict=True)
        ]
        self._static = static_features(space, structure, self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def features(self) -> int:
        """Of a state, without those that the caller adds."""
        return self._static.shape[1] + 3

    @cached_property
    def _undecided(self) -> NDArray[np.bool_]:
        """Which decisions are open at each step, (steps, decisions)."""
        table = np.zeros((len(self.columns), len(self._levels)), dtype=np.bool_)
        for step in range(len(self.columns)):
            table[step, self.columns[step:]] = True
        return table

    def states(self, indices: Indices, by: Range, targets: Floats) -> tuple[Floats, Floats]:
        """A design as it would have been walked: states (steps, features) and realised actions (steps,)."""
        place = np.array(indices, dtype=np.int64)
        dear = np.where(self._undecided, by.dearest, place)
        cheap = np.where(self._undecided, by.cheapest, place)
        told = self._costs(np.concatenate([dear, cheap]), [by.metric])[by.metric]
        found = [float(own[place[column]]) for own, column in zip(self.actions, self.columns, strict=True)]
        states = np.empty((len(self), self.features + len(targets)), dtype=np.float32)
        for step in range(len(self)):
            before = found[step - 1] if step else 1.0
            states[step] = self._state(step, told[step], told[len(self) + step], before, by, targets)
        return states, np.array(found, dtype=np.float32)

    def design(self, choose: Choose, by: Range, targets: Floats, limits: Sequence[tuple[LimitSpec, Integers]]) -> Indices:
        """Walk once.

        An action comes to the choice with the nearest realised action among those that leave the limits within reach:
        with all later decisions as the limit likes them best, the design keeps it (AMC's clip, of each limit on its
        own). Where no choice does, it is the one that misses least; what is then left over is the caller's to repair.

        Args:
            limits: each with the choices that keep it best, (decisions,).
        """
        place, before = np.zeros(len(self._levels), dtype=np.int64), 1.0
        metrics = sorted({by.metric, *(limit.metric for limit, _ in limits)})
        for step, column in enumerate(self.columns):
            level, undecided = self._levels[column], self._undecided[step]
            ends = np.where(undecided, [by.dearest, by.cheapest], place)
            ahead = [self._ahead(place, undecided, column, best) for _, best in limits]
            told = self._costs(np.concatenate([ends, *ahead]), metrics)
            state = self._state(step, *told[by.metric][:2], before, by, targets)
            worst = np.full(level, -1.0)
            for number, (limit, _) in enumerate(limits):
                start = 2 + number * level
                worst = np.maximum(worst, excess_over(told[limit.metric][start : start + level], limit))
            distance = np.abs(self.actions[step] - choose(step, state))
            keeping = worst <= 0
            choice = int(np.argmin(np.where(keeping, distance, np.inf) if keeping.any() else worst))
            place[column], before = choice, float(self.actions[step][choice])
        return tuple(map(int, place))

    def _ahead(self, place: Integers, undecided: NDArray[np.bool_], column: int, best: Integers) -> Integers:
        """Each choice of a decision, all open ones behind it at their best; (choices, decisions)."""
        rows = np.repeat(np.where(undecided, best, place)[None], self._levels[column], axis=0)
        rows[:, column] = np.arange(self._levels[column])
        return rows

    def _state(self, step: int, dear: float, cheap: float, before: float, by: Range, targets: Floats) -> Floats:
        moving = [(by.most - dear) / by.span, (dear - cheap) / by.span, before]
        return np.concatenate([self._static[step], moving, targets]).astype(np.float32)
