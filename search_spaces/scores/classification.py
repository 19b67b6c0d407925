"""Scores of classification."""

from __future__ import annotations

import numpy as np

from search_spaces.datasets import Task
from search_spaces.objectives import Direction, Metric
from search_spaces.scores.base import Scale, Score, ScoreInfo, wilson_interval


def _info(metric: Metric, description: str, least: int = 2, most: int | None = None) -> ScoreInfo:
    return ScoreInfo(
        name=str(metric),
        description=description,
        task=Task.CLASSIFICATION,
        direction=Direction.MAXIMIZE,
        scale=Scale.SHARE,
        least_classes=least,
        most_classes=most,
    )


class Accuracy(Score):
    """Top-1: the largest output is that of the right class."""

    info = _info(Metric.ACCURACY, "share of images whose largest output is the right class (top-1)")

    def value(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        return float((outputs.argmax(axis=1) == targets).mean())

    def interval(self, outputs: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
        return wilson_interval(self.value(outputs, targets), len(targets))


class Top5Accuracy(Score):
    """The right class is among the five largest outputs."""

    info = _info(Metric.TOP5_ACCURACY, "share of images whose right class is among the five largest outputs", least=6)

    def value(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        own = np.take_along_axis(outputs, targets[:, None], axis=1)
        larger = (outputs > own).sum(axis=1)
        return float((larger < 5).mean())

    def interval(self, outputs: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
        return wilson_interval(self.value(outputs, targets), len(targets))


class BalancedAccuracy(Score):
    """Mean of the recalls of the classes that there are images of: rare classes count as much as others."""

    info = _info(Metric.BALANCED_ACCURACY, "mean over the classes of the share of their images that are right")

    def value(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        right, images, _ = _count(outputs, targets)
        return float((right[images > 0] / images[images > 0]).mean())


class MacroF1(Score):
    """Mean over the classes, that are there or told, of 2 TP / (2 TP + FP + FN)."""

    info = _info(Metric.F1, "mean over the classes of the harmonic mean of precision and recall (macro F1)")

    def value(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        right, images, told = _count(outputs, targets)
        both = images + told
        return float((2 * right[both > 0] / both[both > 0]).mean())


class RocAuc(Score):
    """Chance that an image of the second class has a higher output for it than one of the first; ties count half.

    Computed from ranks (Mann and Whitney, 1947). 0 where one of the classes has no image.
    """

    info = _info(Metric.ROC_AUC, "area under the ROC curve of the second of two classes", most=2)

    def value(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        margin = outputs[:, 1] - outputs[:, 0]
        positive = targets == 1
        pairs = int(positive.sum()) * int((~positive).sum())
        if not pairs:
            return 0.0
        _, places, counts = np.unique(margin, return_inverse=True, return_counts=True)
        ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
        own = positive.sum() * (positive.sum() + 1) / 2
        return float((ranks[positive].sum() - own) / pairs)


def _count(outputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By class: images told rightly, images there are, images told to be of it."""
    told, classes = outputs.argmax(axis=1), outputs.shape[1]
    right, images, answers = (
        np.bincount(labels, minlength=classes) for labels in (targets[told == targets], targets, told)
    )
    return right, images, answers
