"""The 8x8 digits that ship with scikit-learn: small enough for tests, and always there."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from search_spaces.datasets import DATASETS
from workers.datasets.dataset import Dataset
from workers.datasets.source import DatasetSource
from workers.progress import Progress

_LARGEST_VALUE = 16


class Digits(DatasetSource):
    """Values 0..16 become 0..255. They have no official test set: the last images are taken as one."""

    info = DATASETS["digits"]

    def load(self, folder: Path, progress: Progress) -> Dataset:
        # Imported here: scikit-learn takes half a second that no other data set needs.
        from sklearn.datasets import load_digits

        raw = load_digits()
        images = np.rint(raw.images * (255 / _LARGEST_VALUE)).astype(np.uint8)[:, None]
        labels = raw.target.astype(np.int64)
        pool, test = slice(None, self.info.images), slice(self.info.images, None)
        return Dataset(self.info, images[pool], labels[pool], images[test], labels[test])
