"""What a loaded data set is, and what is said when one cannot be had. Knows no particular data set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from search_spaces.datasets import DatasetInfo, Task


class DatasetUnavailableError(RuntimeError):
    """No source gave the data set; the message says what was tried and what to do."""


@dataclass(frozen=True)
class Dataset:
    """A data set in memory.

    Attributes:
        images, test_images: uint8 (N, C, H, W).
        labels, test_labels: int64 (N), from 0 to `info.classes` - 1; for regression finite float32 (N).

    Raises:
        ValueError: on construction, when arrays and `info` do not fit together.
    """

    info: DatasetInfo
    images: np.ndarray
    labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray

    def __post_init__(self) -> None:
        for images, labels in ((self.images, self.labels), (self.test_images, self.test_labels)):
            if images.dtype != np.uint8 or images.shape != (len(labels), *self.info.shape):
                raise ValueError(f"{self.info.name}: {images.dtype} {images.shape} for {len(labels)} labels")
            if self.info.task is Task.REGRESSION:
                if labels.dtype != np.float32 or not np.isfinite(labels).all():
                    raise ValueError(f"{self.info.name}: values are {labels.dtype}, or not all finite")
            elif labels.dtype != np.int64 or (
                len(labels) and not 0 <= labels.min() <= labels.max() < self.info.classes
            ):
                raise ValueError(f"{self.info.name}: a label is not in 0 to {self.info.classes - 1}")


def big_endian(labels: np.ndarray) -> np.ndarray:
    """Labels as they go into digests: the same bytes on any machine."""
    return labels.astype(">i8" if labels.dtype.kind == "i" else ">f4")
