"""The cost that each trial of a walk is to come to: how an agent with one reward finds a whole front.

It must not know how a target is kept, nor what is learned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from search_spaces.foreseen import ForeseenLimits
from search_spaces.objectives import DEVICE_METRICS, MAP_METRICS, SYMBOLIC_METRICS, Direction, Metric
from search_spaces.samplers.walk import Range
from search_spaces.spec import LimitSpec, SearchSpec

GOLDEN = (5**0.5 - 1) / 2

_STAND_INS = (Metric.MACS, Metric.SIZE_BYTES, Metric.ACTIVATION_TRAFFIC_BYTES)
"""For costs that only measuring tells, the first of which designs differ in."""


class CostTargets:
    """Each trial has a target for one metric; with several cost objectives they take turns.

    Targets of a metric go over what designs take of it, from the least to the most (or to the limit on it), in the
    order of a golden-section sequence: any number of trials in a row is spread evenly. Without a cost objective there
    are no targets.
    """

    def __init__(self, spec: SearchSpec, foreseen: ForeseenLimits, range_of: Callable[[str], Range]) -> None:
        self._limits = spec.limits
        self._device = spec.device
        self._start = np.random.default_rng(spec.sampler.seed).random()
        self.ranges = _ranges(spec, foreseen, range_of)

    def __len__(self) -> int:
        return len(self.ranges)

    def range_at(self, number: int) -> Range:
        """Whose turn it is at a trial."""
        return self.ranges[number % len(self.ranges)]

    def share_at(self, number: int) -> float:
        """The target of a trial as a share of its metric's range."""
        turn = self.range_at(number)
        place = (self._start + GOLDEN * (number // len(self.ranges))) % 1.0
        limits = [one.max for one in self._limits if one.metric == turn.metric and one.max is not None]
        highest = min([turn.most, *limits])
        return place * max(turn.share(highest), 0.0)

    def limit_of(self, turn: Range, share: float) -> LimitSpec:
        """The target as a limit. Rounding could put it below the least that there is."""
        most = max(turn.least + share * (turn.most - turn.least), turn.least)
        return LimitSpec(metric=turn.metric, max=most, device=self._device if turn.metric in DEVICE_METRICS else None)

    def features(self, turn: Range, share: float) -> np.ndarray:
        """Of a state: the share that each metric is held to, 1 where it is not."""
        return np.array([share if one is turn else 1.0 for one in self.ranges], dtype=np.float32)


def _ranges(spec: SearchSpec, foreseen: ForeseenLimits, range_of: Callable[[str], Range]) -> Sequence[Range]:
    costs = DEVICE_METRICS | SYMBOLIC_METRICS | MAP_METRICS
    wanted = [one.metric for one in spec.objectives if one.metric in costs and one.direction is Direction.MINIMIZE]
    told = [range_of(metric) for metric in wanted if metric in foreseen.costs.metrics]
    if len(told) < len(wanted):
        stand_ins = (range_of(metric) for metric in _STAND_INS)
        told += [one for one in stand_ins if not one.is_empty and one.metric not in wanted][:1]
    return [one for one in told if not one.is_empty]
