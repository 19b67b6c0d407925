"""Fits the constants of `search_spaces.cost_models.balance` to what convs of several group sizes were found to take."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import nnls

from search_spaces.cost_models.balance import Balance, GroupedConv, terms

FEWEST_POINTS = 3
"""As many as there are constants."""


def fit_balance(measured: Sequence[tuple[GroupedConv, float]]) -> Balance:
    """The constants, none of them negative, with the least sum of squared relative errors.

    Args:
        measured: convs with seconds or joules of each, above 0; of one device, runtime and precision.

    Raises:
        ValueError: fewer than three group sizes, or a figure that is not above 0.
    """
    if len({conv.group_size for conv, _ in measured}) < FEWEST_POINTS:
        raise ValueError(f"three constants need figures of at least {FEWEST_POINTS} group sizes")
    values = np.array([value for _, value in measured])
    if not (np.isfinite(values) & (values > 0)).all():
        raise ValueError("what a conv takes is a finite number above 0")
    rows = np.array([terms(conv) for conv, _ in measured]) / values[:, None]
    scale = np.abs(rows).max(axis=0)  # seconds per MAC and per call differ by a billion
    constants = nnls(rows / scale, np.ones(len(rows)))[0] / scale
    return Balance(*(float(constant) for constant in constants))
