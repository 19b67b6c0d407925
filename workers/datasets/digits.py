"""The 8x8 digits that ship with scikit-learn: small enough for tests, and always there."""

from __future__ import annotations

import numpy as np

from search_spaces.datasets import DATASETS
from workers.datasets.dataset import Dataset

_LARGEST_VALUE = 16


def load_digits() -> Dataset:
    """Values 0..16 become 0..255. They have no official test set: the last images are taken as one."""
    # Imported here: scikit-learn takes half a second that no other data set needs.
    from sklearn.datasets import load_digits as load_raw_digits

    info = DATASETS["digits"]
    raw = load_raw_digits()
    images = np.rint(raw.images * (255 / _LARGEST_VALUE)).astype(np.uint8)[:, None]
    labels = raw.target.astype(np.int64)
    pool, test = slice(None, info.images), slice(info.images, None)
    return Dataset(info, images[pool], labels[pool], images[test], labels[test])
