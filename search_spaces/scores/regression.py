"""Scores of regression: a network that tells a number."""

from __future__ import annotations

import numpy as np

from search_spaces.datasets import Task
from search_spaces.objectives import Direction, Metric
from search_spaces.scores.base import Scale, Score, ScoreInfo


def _info(metric: Metric, description: str, direction: Direction) -> ScoreInfo:
    return ScoreInfo(
        name=str(metric), description=description, task=Task.REGRESSION, direction=direction, scale=Scale.NUMBER
    )


class MeanAbsoluteError(Score):
    """Mean distance between output and target, in the target's own unit."""

    info = _info(Metric.MEAN_ABSOLUTE_ERROR, "mean distance from the target, in its own unit", Direction.MINIMIZE)

    def value(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        return float(np.abs(outputs[:, 0].astype(np.float64) - targets).mean())


class R2(Score):
    """Coefficient of determination: 1 minus the squared error over the targets' own variance.

    0 where the targets are all alike, when it is not defined.
    """

    info = _info(Metric.R2, "share of the targets' variance that is explained", Direction.MAXIMIZE)

    def value(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        targets = targets.astype(np.float64)
        total = ((targets - targets.mean()) ** 2).sum()
        if not total:
            return 0.0
        return float(1 - ((outputs[:, 0] - targets) ** 2).sum() / total)
