"""Which of many images are the same, told by their digests, and which of them stays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workers.datasets.index import Index, Rows, SplitNumber


@dataclass(frozen=True)
class Fates:
    """What becomes of each image that was read; all are masks over its rows, and no two overlap.

    Attributes:
        is_kept: it is used.
        is_copy: another one with the same pixels and label is used instead.
        is_disputed: others have the same pixels and another label, so that nobody knows which is right.
        is_known: the data set has it already.
        is_known_otherwise: the data set has it already, with another label.
        dropped: how many images of the pool are not used because the test set has them.
    """

    is_kept: np.ndarray
    is_copy: np.ndarray
    is_disputed: np.ndarray
    is_known: np.ndarray
    is_known_otherwise: np.ndarray
    dropped: int


def tell_fates(rows: Rows, is_test: np.ndarray, earlier: Index | None) -> Fates:
    """Keep each image once: that in the test set, else the first. What was in the data set before stays as it was."""
    order = np.lexsort((~is_test, rows.digests))
    starts = np.flatnonzero(np.diff(rows.digests[order], prepend=~rows.digests[order[:1]]))
    labels = rows.labels[order]
    differ = np.minimum.reduceat(labels, starts) != np.maximum.reduceat(labels, starts)
    sizes = np.diff(starts, append=len(order))

    is_first, is_disputed, is_tested = (np.zeros(len(rows), dtype=bool) for _ in range(3))
    is_first[order[starts]] = True
    is_disputed[order] = np.repeat(differ, sizes)
    is_tested[order] = np.repeat(is_test[order[starts]], sizes)

    is_old, has_other_label, is_tested_before = _compare(rows, earlier)
    is_disputed &= ~is_old
    is_copy = ~is_first & ~is_disputed & ~is_old
    dropped = (is_copy & is_tested & ~is_test) | (is_tested_before & ~is_test)
    return Fates(
        is_kept=is_first & ~is_disputed & ~is_old,
        is_copy=is_copy,
        is_disputed=is_disputed,
        is_known=is_old & ~has_other_label,
        is_known_otherwise=is_old & has_other_label,
        dropped=int(dropped.sum()),
    )


def _compare(rows: Rows, earlier: Index | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whether the data set had each image before, whether with another label, whether for testing."""
    if earlier is None:
        nothing = np.zeros(len(rows), dtype=bool)
        return nothing, nothing, nothing
    place = np.minimum(np.searchsorted(earlier.rows.digests, rows.digests), len(earlier) - 1)
    is_old = earlier.rows.digests[place] == rows.digests
    has_other_label = is_old & (earlier.rows.labels[place] != rows.labels)
    return is_old, has_other_label, is_old & (earlier.splits[place] == SplitNumber.TEST)
