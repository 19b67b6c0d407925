"""Whether what was predicted of trials ranks them as what they found does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

JUDGED_TRIALS = 40
"""The latest, that a predictor is judged by."""
JUDGED_FROM = 12
"""With fewer nothing is said."""
LEAST_CORRELATION = 0.3
"""Below it predictions are left aside."""


def spearman(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's rank correlation of (predicted, found); None of fewer than JUDGED_FROM, 0 where one never differs."""
    if len(pairs) < JUDGED_FROM:
        return None
    columns = np.array(pairs).T
    if np.ptp(columns, axis=1).min() == 0:
        return 0.0
    predicted, found = (np.argsort(np.argsort(column)) for column in columns)
    return float(np.corrcoef(predicted, found)[0, 1])
