"""A space as an agent walks it: its decisions one after another, in the order of the layers.

At each step the agent sees features of the layer, what the steps before saved and what those to come could, and
answers with an action in [0, 1], which becomes one of the decision's choices. It must not know how the agent learns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from search_spaces.apply import structure_of
from search_spaces.batch_costs import BatchCosts, Numbers
from search_spaces.batch_shapes import Integers
from search_spaces.foreseen import excess_over
from search_spaces.samplers.perceptron import Floats
from search_spaces.samplers.walk_features import kept_by, static_features, steps_of
from search_spaces.space import Indices, Space
from search_spaces.spec import LimitSpec

SHIFTS = np.linspace(-6.0, 6.0, 13)
"""In log-odds, that a plan is looked at with: enough for one that keeps nearly all to come to keep nearly nothing."""
LEAST_ODDS = 0.02
"""Nearer to 0 or 1 an action has no log-odds that are worth anything."""

Policy = Callable[[Floats], Floats]
"""Actions in [0, 1], (rows,), for states, (rows, features)."""
Draw = Callable[[int, float], float]
"""The action taken at a step, for the policy's: noise is somebody else's matter."""


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


@dataclass(frozen=True, eq=False)
class Course:
    """What a walk has to keep to.

    Attributes:
        by: the metric that savings are counted in.
        targets: what a state says of it besides.
        limits: each with the choices that keep it best, (decisions,).
    """

    by: Range
    targets: Floats
    limits: tuple[tuple[LimitSpec, Integers], ...]

    @property
    def metrics(self) -> list[str]:
        return sorted({self.by.metric, *(limit.metric for limit, _ in self.limits)})


def range_of(costs: BatchCosts, levels: Sequence[int], metric: str) -> Range:
    ends = np.array([_extreme(costs, levels, metric, sign) for sign in (1.0, -1.0)])
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

    An action is what is kept (`walk_features.kept_by`): of channels as AMC's preserve ratio. What agents plan at first
    fits no limit, and an action that keeps everything is right in the first layers whatever comes of the last: clipped
    alone, all that is learned is to be free early and squeezed late. So before an action is clipped it is shifted, in
    log-odds, by as much as the policy's own plan for all that is open would have to be to just keep the limits.

    Features of a state, in this order, in [0, 1] all but for rounding:
        those of `walk_features`, which no design changes;
        reduced: what the steps before saved of the metric that is walked by, as a share of what can be saved at all;
        rest: what the steps to come could save at most, likewise;
        what the step before came to (realised, not as the policy gave it), 1 before the first;
        what the course adds: the targets.

    AMC's published code starts with a `rest` of weight counts and goes on with one of FLOPs, and counts depthwise
    layers in whatever comes; here both are differences of costs of whole designs, at every step.
    """

    def __init__(self, space: Space, costs: BatchCosts) -> None:
        self._costs = costs
        self._levels = np.array([len(decision.choices) for decision in space.decisions], dtype=np.int64)
        structure = structure_of(space.network)
        self._columns = np.array(steps_of(space, structure), dtype=np.int64)
        self._static = static_features(space, structure, self._columns.tolist())
        self._kept = np.full((len(self), int(self._levels.max(initial=1))), np.inf)
        for step, column in enumerate(self._columns):
            self._kept[step, : self._levels[column]] = kept_by(space.decisions[column])
        self._undecided = np.zeros((len(self), len(self._levels)), dtype=np.bool_)
        for step in range(len(self)):
            self._undecided[step, self._columns[step:]] = True

    def __len__(self) -> int:
        return len(self._columns)

    @property
    def features(self) -> int:
        """Of a state, without those that the course adds."""
        return int(self._static.shape[1]) + 3

    def replayed(self, indices: Sequence[int] | Integers, course: Course) -> tuple[Floats, Floats]:
        """A design as it would have been walked: states (steps, features) and the actions realised, (steps,)."""
        place = np.array(indices, dtype=np.int64)
        rows = [np.where(self._undecided, end, place) for end in (course.by.dearest, course.by.cheapest)]
        dear, cheap = self._costs(np.concatenate(rows), [course.by.metric])[course.by.metric].reshape(2, -1)
        actions = self._kept[np.arange(len(self)), place[self._columns]]
        before = np.concatenate([[1.0], actions])
        states = [self._state(step, dear[step], cheap[step], before[step], course) for step in range(len(self))]
        shape = (len(self), self.features + len(course.targets))
        return np.array(states, dtype=np.float32).reshape(shape), actions.astype(np.float32)

    def design(self, policy: Policy, draw: Draw, course: Course) -> Indices:
        """Walk once.

        An action comes to the nearest choice among those that leave the limits within reach: with all later decisions
        as the limit likes them best, the design keeps it (AMC's clip, of each limit on its own). Where no choice
        does, it is the one that misses least; what is then left over is the caller's to repair.
        """
        place, before = np.zeros(len(self._levels), dtype=np.int64), 1.0
        plans = self._plans(policy, course)
        glance = np.concatenate([[course.by.dearest, course.by.cheapest], plans])
        for step, column in enumerate(self._columns):
            ahead = [self._ahead(step, place, best) for _, best in course.limits]
            rows = np.concatenate([np.where(self._undecided[step], glance, place), *ahead])
            told, level = self._costs(rows, course.metrics), int(self._levels[column])
            dear, cheap = told[course.by.metric][:2]
            wanted = draw(step, float(policy(self._state(step, dear, cheap, before, course)[None])[0]))
            if len(plans):
                wanted = shifted(wanted, _fitting_shift(_worst(told, course, 2, len(plans))))
            misses, distance = self._misses(told, course, level), np.abs(self._kept[step, :level] - wanted)
            place[column] = int(np.argmin(np.where(misses <= 0, distance, np.inf) if misses.min() <= 0 else misses))
            before = float(self._kept[step, place[column]])
        return tuple(map(int, place))

    def _plans(self, policy: Policy, course: Course) -> Integers:
        """What the policy would do at every step, shifted in log-odds by each of SHIFTS; (shifts, decisions).

        It is asked at the states of the design that is even everywhere and keeps the limits. None where nothing limits.
        """
        if not course.limits:
            return np.empty((0, len(self._levels)), dtype=np.int64)
        even = self._nearest(np.full(len(self), 0.5))
        told = self._costs(even, course.metrics)
        keeping = np.flatnonzero(_worst(told, course, 0, len(even)) <= 0)
        states, _ = self.replayed(even[keeping[-1] if len(keeping) else 0], course)
        return self._nearest(policy(states))

    def _nearest(self, plan: Numbers | Floats) -> Integers:
        """The choices nearest to a plan's actions, (steps,), with each shift; (shifts, decisions)."""
        wanted = shifted(plan[None], SHIFTS[:, None])
        rows = np.zeros((len(SHIFTS), len(self._levels)), dtype=np.int64)
        rows[:, self._columns] = np.abs(self._kept[None] - wanted[:, :, None]).argmin(axis=2)
        return rows

    def _ahead(self, step: int, place: Integers, best: Integers) -> Integers:
        """Each choice of a step, all open decisions behind it at their best; (choices, decisions)."""
        column = self._columns[step]
        rows = np.repeat(np.where(self._undecided[step], best, place)[None], self._levels[column], axis=0)
        rows[:, column] = np.arange(self._levels[column])
        return rows

    def _misses(self, told: Mapping[str, Numbers], course: Course, level: int) -> Numbers:
        """By how much each choice misses the limit it misses most, (choices,); the last rows told are of them."""
        worst = np.full(level, -1.0)
        for number, (limit, _) in enumerate(course.limits):
            values = told[limit.metric]
            start = len(values) - (len(course.limits) - number) * level
            worst = np.maximum(worst, excess_over(values[start : start + level], limit))
        return worst

    def _state(self, step: int, dear: float, cheap: float, before: float, course: Course) -> Floats:
        moving = [(course.by.most - dear) / course.by.span, (dear - cheap) / course.by.span, before]
        return np.concatenate([self._static[step], moving, course.targets]).astype(np.float32)


def shifted(action: Any, shift: Any) -> Any:
    """An action, or an array of them, shifted in log-odds."""
    inside = np.clip(action, LEAST_ODDS, 1 - LEAST_ODDS)
    return 1 / (1 + (1 - inside) / inside * np.exp(-shift))


def _worst(told: Mapping[str, Numbers], course: Course, start: int, count: int) -> Numbers:
    """By how much some of the rows told miss the limit they miss most, (count,)."""
    end = start + count
    worst: Numbers = np.max([excess_over(told[limit.metric][start:end], limit) for limit, _ in course.limits], axis=0)
    return worst


def _fitting_shift(worst: Numbers) -> float:
    """The greatest shift that keeps the limits, along the slope between those that were looked at."""
    keeping = np.flatnonzero(worst <= 0)
    if not len(keeping):
        return float(SHIFTS[0])
    last = int(keeping[-1])
    if last + 1 == len(SHIFTS):
        return float(SHIFTS[-1])
    share = worst[last] / (worst[last] - worst[last + 1])
    return float(SHIFTS[last] + share * (SHIFTS[last + 1] - SHIFTS[last]))
