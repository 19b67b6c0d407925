"""The scores by name: what a search can be asked to make good or keep within limits, told from outputs alone."""

from __future__ import annotations

from functools import lru_cache

from search_spaces.datasets import Task
from search_spaces.extensions import with_installed
from search_spaces.objectives import Metric
from search_spaces.scores.base import Scale, Score, ScoreInfo, wilson_interval
from search_spaces.scores.classification import Accuracy, BalancedAccuracy, MacroF1, RocAuc, Top5Accuracy
from search_spaces.scores.regression import R2, MeanAbsoluteError

__all__ = ["BUILT_IN_SCORES", "MAIN_SCORE", "Scale", "Score", "ScoreInfo", "installed_scores", "wilson_interval"]

BUILT_IN_SCORES: dict[str, type[Score]] = {
    score.info.name: score
    for score in (Accuracy, Top5Accuracy, BalancedAccuracy, MacroF1, RocAuc, MeanAbsoluteError, R2)
}
MAIN_SCORE = {Task.CLASSIFICATION: str(Metric.ACCURACY), Task.REGRESSION: str(Metric.MEAN_ABSOLUTE_ERROR)}
"""What is told of every network of a task, whatever else is asked for."""


@lru_cache(maxsize=1)
def installed_scores() -> dict[str, type[Score]]:
    """Those here, and those that the operator installed in this Python (`espalier.scores`)."""
    return with_installed(BUILT_IN_SCORES, "espalier.scores", Score)
