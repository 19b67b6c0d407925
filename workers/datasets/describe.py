"""What a search must know of a user's data set, from its index alone."""

from __future__ import annotations

import numpy as np

from search_spaces.datasets import DatasetInfo, Task
from workers.datasets.index import Index, SplitNumber

_HELD_OUT = (SplitNumber.CALIBRATE, SplitNumber.SCORE, SplitNumber.CONFIRM)
_LEAST_STD = 1 / 255
"""Of images that are all of one shade: networks divide by it."""


def describe(index: Index) -> DatasetInfo:
    """The contract of a user's data set.

    Mean and standard deviation are those of the split `train`, of which every image counts alike, however large it
    is. There is one channel when no image is in colour. The shape is the one that most images have.
    """
    channels = 3 if index.rows.is_colour.any() else 1
    mean, std = _statistics(index, channels)
    counts = {split: int((index.splits == split).sum()) for split in SplitNumber}
    size = index.report["sizes"][0]
    return DatasetInfo(
        name=index.name,
        description=_description(index, channels),
        classes=len(index.class_names),
        shape=(channels, size["height"], size["width"]),
        mean=mean,
        std=std,
        images=len(index) - counts[SplitNumber.TEST],
        test_images=counts[SplitNumber.TEST],
        task=index.task,
        class_names=index.class_names,
        digest=index.digest,
        held_out={split.name.lower(): counts[split] for split in _HELD_OUT},
        is_resized=True,
    )


def _statistics(index: Index, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    moments = index.rows.moments[index.splits == SplitNumber.TRAIN].astype(np.float64).mean(axis=0)[:channels]
    mean, square = moments[:, 0], moments[:, 1]
    std = np.sqrt(np.maximum(square - mean**2, _LEAST_STD**2))
    return tuple(mean.round(6).tolist()), tuple(std.round(6).tolist())


def _description(index: Index, channels: int) -> str:
    kind = "grey" if channels == 1 else "colour"
    told = "with values" if index.task is Task.REGRESSION else f"of {len(index.class_names):,} classes"
    return f"{len(index):,} {kind} images {told}"
