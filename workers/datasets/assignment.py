"""Which split each image of a user's data set is in: by class and digest, and for good.

The rules, for each class (for regression: for each of ten bins with equally many values):

- Each held-out split is due its share of the class (`held_out_shares`), apportioned by largest remainders over the
  classes. A class of 8 images or more has at least one in every split; of no class more than half is held out.
- Images without a split fill what is missing, in the order of their digests: first `score`, then `confirm`, then
  `calibrate`. All others train.
- An image that has a split keeps it. So what a network was trained on never comes to be what it is scored on, however
  much is added; held-out splits that are larger than their due after the shares have changed stay so.

Known from digests and labels alone: neither the order of the images nor their archives matter.
"""

from __future__ import annotations

import numpy as np

from search_spaces.datasets import held_out_shares
from workers.datasets.index import SplitNumber
from workers.strata import IN_EVERY_SPLIT, apportion

NOT_ASSIGNED = 255

_ORDER = (SplitNumber.SCORE, SplitNumber.CONFIRM, SplitNumber.CALIBRATE)


def assign_splits(strata: np.ndarray, splits: np.ndarray) -> np.ndarray:
    """Give a split to each image that has none.

    Args:
        strata: int (n), the class or bin of each image, ascending by digest.
        splits: uint8 (n), NOT_ASSIGNED for new ones.

    Returns:
        uint8 (n) without NOT_ASSIGNED.
    """
    out = splits.copy()
    in_pool = splits != SplitNumber.TEST
    count = int(strata.max(initial=-1)) + 1
    seats = due(np.bincount(strata[in_pool], minlength=count))
    missing = {split: seats[split] - np.bincount(strata[splits == split], minlength=count) for split in _ORDER}
    new = np.flatnonzero(splits == NOT_ASSIGNED)
    new = new[np.argsort(strata[new], kind="stable")]
    bounds = np.searchsorted(strata[new], np.arange(count + 1))
    for stratum in range(count):
        rows = new[bounds[stratum] : bounds[stratum + 1]]
        for split in _ORDER:
            wanted = max(0, int(missing[split][stratum]))
            out[rows[:wanted]] = split
            rows = rows[wanted:]
        out[rows] = SplitNumber.TRAIN
    return out


def due(counts: np.ndarray) -> dict[SplitNumber, np.ndarray]:
    """How many images each held-out split should have of each class, given how many there are of each."""
    shares = held_out_shares(int(counts.sum()))
    room = counts // 2
    seats = {}
    for later, split in zip((2, 1, 0), _ORDER, strict=True):
        most_room_first = np.argsort(-room, kind="stable")  # or small classes that are alike would get all or nothing
        wanted = np.zeros_like(counts)
        wanted[most_room_first] = apportion(counts[most_room_first], shares[split.name.lower()])
        is_large = counts >= IN_EVERY_SPLIT
        seats[split] = np.minimum(np.maximum(wanted, is_large), room - later * is_large)
        room = room - seats[split]
    return seats
