"""What trying each of many designs is expected to be worth to a search: on what is computed, and what is predicted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from search_spaces.foreseen import ForeseenLimits
from search_spaces.objectives import Direction
from search_spaces.samplers.acquisition import (
    chebyshev_improvement,
    hypervolume_improvement,
    non_dominated,
    quadrature,
)
from search_spaces.samplers.predictor import Prediction, Predictor, scale_of
from search_spaces.space import Indices
from search_spaces.spec import LimitSpec, SearchSpec

Numbers = NDArray[np.float64]
Rows = NDArray[np.int64]

MARGIN = 0.1
"""The reference point lies so far beyond the worst that was found, as a share of the range."""


class Worth:
    """Of designs of one search, at one moment."""

    def __init__(
        self,
        spec: SearchSpec,
        foreseen: ForeseenLimits,
        predictor: Predictor,
        points: Numbers,
        running: Sequence[Indices],
        generator: np.random.Generator,
    ) -> None:
        """What is known of the search.

        Args:
            spec: its objectives and limits.
            foreseen: computes what follows from a design.
            predictor: of the rest; it must be ready.
            points: of the trials so far, (trials, objectives), all to be minimised; at least one.
            running: designs that have no result yet: taken to find what is predicted.
            generator: draws weights where there are more than two objectives.
        """
        self._spec, self._costs, self._predictor, self._running = spec, foreseen.costs, predictor, running
        self._signs = np.array([-1.0 if one.direction is Direction.MAXIMIZE else 1.0 for one in spec.objectives])
        worst, best = points.max(axis=0), points.min(axis=0)
        spans = np.where(worst > best, worst - best, np.maximum(np.abs(worst), 1e-12))
        self._reference = worst + MARGIN * spans
        if running:
            rows = np.array(running, dtype=np.int64)
            theirs = self._points(self._predictor.predict(rows), self._computed(rows), {})
            points = np.concatenate([points, theirs[(theirs < self._reference).all(axis=1)]])
        front = points[non_dominated(points)]
        self._front = front[np.argsort(front[:, 0])]
        self._weights = generator.dirichlet(np.ones(points.shape[1]))

    def __call__(self, rows: Rows) -> Numbers:
        """The expected improvement, (designs,), times the probability that all limits are kept."""
        predicted, computed = self._predictor.predict(rows, self._running), self._computed(rows)
        unknown = [one.metric for one in self._spec.objectives if one.metric in predicted]
        worth = np.zeros(len(rows))
        for normals, share in zip(*quadrature(len(unknown)), strict=True):
            points = self._points(predicted, computed, dict(zip(unknown, normals, strict=True)))
            worth += share * self._improvement(points)
        for limit in self._spec.limits:
            if limit.metric in predicted:
                worth *= _probability(predicted[limit.metric], limit)
        return worth

    def _computed(self, rows: Rows) -> dict[str, Numbers]:
        wanted = [one.metric for one in self._spec.objectives if one.metric in self._costs.metrics]
        return self._costs(rows, wanted)

    def _points(
        self, predicted: Mapping[str, Prediction], computed: Mapping[str, Numbers], normals: Mapping[str, float]
    ) -> Numbers:
        """Where designs would lie, so many standard deviations from what is predicted of each metric."""
        columns = [
            computed[one.metric] if one.metric in computed else predicted[one.metric].at(normals.get(one.metric, 0.0))
            for one in self._spec.objectives
        ]
        points: Numbers = np.stack(columns, axis=1) * self._signs
        return points

    def _improvement(self, points: Numbers) -> Numbers:
        if points.shape[1] == 2:
            return hypervolume_improvement(points, self._front, self._reference)
        return chebyshev_improvement(points, self._front, self._reference, self._weights)


def _probability(prediction: Prediction, limit: LimitSpec) -> Numbers:
    bound = limit.max if limit.max is not None else limit.min
    assert bound is not None, "a limit has one of the two"
    distance = (scale_of(limit.metric).learned(bound) - prediction.mean) / np.maximum(prediction.deviation, 1e-12)
    below = np.array([0.5 * math.erfc(-one / math.sqrt(2)) for one in distance])
    return below if limit.max is not None else 1 - below
