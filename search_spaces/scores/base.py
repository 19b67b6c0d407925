"""The contract of scores: how good a network's outputs are, as one number.

It must not know how outputs come about, nor data sets beyond their task and number of classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import StrEnum
from typing import ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from search_spaces.datasets import Task
from search_spaces.objectives import Direction

RESAMPLES = 400
_SEED = 19_790


class Scale(StrEnum):
    """How a score is shown to people."""

    SHARE = "share"  # from 0 to 1, shown in per cent
    NUMBER = "number"


class ScoreInfo(BaseModel):
    """What is known of a score without computing it.

    Attributes:
        least_classes, most_classes: of data sets that it can be told of; None: any number.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    description: str
    task: Task
    direction: Direction
    scale: Scale
    least_classes: int = 0
    most_classes: int | None = None


class Score(ABC):
    """Turns outputs and targets into a number.

    **Arguments.** `outputs` are float32, (n, classes) for classification, the larger the likelier, and (n, 1) for
    regression; `targets` are int64 (n,), numbers of classes, or float32 (n,). A network with one output for two
    classes has been given the output 0 for the first one. n is at least 1, outputs are finite.

    **Guarantees.** The value depends on nothing else, and not on the order of images. Where it is not defined, as a
    class that no image is of, it says 0 for that part instead of raising: a search must go on. It is finite.
    """

    info: ClassVar[ScoreInfo]

    @abstractmethod
    def value(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        """The score of all images together."""

    def interval(self, outputs: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
        """A 95% interval of the value: percentiles over resampled images (Efron, 1979); the same for the same input."""
        generator = np.random.default_rng(_SEED)
        count = len(targets)
        drawn = generator.integers(0, count, (RESAMPLES, count))
        values = [self.value(outputs[rows], targets[rows]) for rows in drawn]
        low, high = np.percentile(values, [2.5, 97.5])
        return float(low), float(high)


def wilson_interval(share: float, total: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share of `total` images (Wilson, 1927): sensible near 0 and 1 and for few images."""
    z = 1.959963984540054
    centre = share + z**2 / (2 * total)
    half_width = z * float(np.sqrt(share * (1 - share) / total + z**2 / (4 * total**2)))
    scale = 1 + z**2 / total
    low, high = (centre - half_width) / scale, (centre + half_width) / scale
    return min(max(0.0, low), share), max(min(1.0, high), share)  # rounding must not leave the share outside
