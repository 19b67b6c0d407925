"""The range that a quantised activation is given, from a sample of its values. Pure numpy.

Ranges of least squared error and of least divergence are looked for on a histogram: both ends are drawn in together,
since a range always holds zero, and each candidate's grid is the one that the file would have.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from search_spaces.spec import Calibration
from workers.onnx_quantize import TensorRange

PERCENTILE = 99.9

BINS = 2048

_FRACTIONS = np.geomspace(1 / 64, 1, 64)
"""Of the whole range."""

_UNSEEN = 1e-4
"""Share that a bin with values gets which quantisation leaves without any: else the divergence has no bound."""


def range_of_sample(sample: np.ndarray, bits: int, method: Calibration) -> TensorRange:
    """Smallest and largest value that a grid of so many bits should reach.

    Args:
        sample: finite values, any shape, at least one.
        bits: 2 to 8.
        method: how it is told.
    """
    if method is Calibration.PERCENTILE:
        low, high = np.percentile(sample, [100 - PERCENTILE, PERCENTILE])
        return float(low), float(high)
    low, high = float(sample.min()), float(sample.max())
    low, high = min(low, 0.0), max(high, 0.0)
    if method is Calibration.MIN_MAX or high - low < np.finfo(np.float32).tiny:
        return low, high
    # Zero is on every grid, and would be most of what comes out of a relu.
    counts, _ = np.histogram(sample[sample != 0], BINS, (low, high))
    histogram = _Histogram(counts.astype(np.float64), low, high)
    costs = _squared_errors(histogram, bits) if method is Calibration.MSE else _divergences(histogram, bits)
    best = _FRACTIONS[-len(costs) :][np.argmin(costs)]
    return low * float(best), high * float(best)


@dataclass(frozen=True)
class _Histogram:
    """Counts of `BINS` equal bins from low to high, which has zero in it."""

    counts: np.ndarray
    low: float
    high: float

    @property
    def centres(self) -> np.ndarray:
        centres: np.ndarray = self.low + (np.arange(BINS) + 0.5) * ((self.high - self.low) / BINS)
        return centres


def _squared_errors(histogram: _Histogram, bits: int) -> np.ndarray:
    """Expected, of rounding to the grid of each fraction of the range, (fractions,)."""
    top = 2**bits - 1
    scales = (_FRACTIONS * (histogram.high - histogram.low) / top)[:, None]
    zero = np.rint(-histogram.low * _FRACTIONS[:, None] / scales)
    steps = histogram.centres / scales  # (fractions, bins)
    away = (np.clip(np.rint(steps) + zero, 0, top) - zero - steps) * scales
    # What values are off within their bin adds the same to every fraction, nearly.
    return np.asarray(np.einsum("fb,fb,b->f", away, away, histogram.counts))


def _divergences(histogram: _Histogram, bits: int) -> np.ndarray:
    """Kullback-Leibler, of what is left in each fraction of the range from its quantised form, (fractions,).

    As of S. Migacz, "8-bit inference with TensorRT", GTC 2017: values beyond an end count at the end in the reference
    only, and each level is spread evenly over its bins that have values. Ranges of fewer bins than levels are no
    quantisation and are left out.
    """
    levels = 2**bits
    windows = _windows(levels, -histogram.low / (histogram.high - histogram.low))
    counts = histogram.counts
    inside = np.where(windows.is_inside, counts, 0.0)
    reference = inside.copy()
    total = np.concatenate([[0.0], np.cumsum(counts)])
    rows = np.arange(len(reference))
    reference[rows, windows.first] += total[windows.first]
    reference[rows, windows.last] += total[-1] - total[windows.last + 1]
    shares = _spread(inside, windows.level, levels)
    return _divergence(reference, shares)


@dataclass(frozen=True)
class _Windows:
    """Which bins each fraction of the range has (fractions, bins), from which to which, and which level each is in."""

    is_inside: np.ndarray
    first: np.ndarray
    last: np.ndarray
    level: np.ndarray


@lru_cache(maxsize=64)
def _windows(levels: int, zero: float) -> _Windows:
    """Args: levels: of the grid. zero: where zero is in the whole range, from 0 to 1."""
    fractions = _FRACTIONS[levels / BINS <= _FRACTIONS][:, None]
    places = (np.arange(BINS) + 0.5) / BINS
    relative = (places - zero) / fractions + zero
    is_inside = (relative >= 0) & (relative < 1)
    level = np.clip(relative * levels, 0, levels - 1).astype(np.intp)
    return _Windows(is_inside, is_inside.argmax(axis=1), BINS - 1 - is_inside[:, ::-1].argmax(axis=1), level)


def _spread(inside: np.ndarray, level: np.ndarray, levels: int) -> np.ndarray:
    """Each level's values shared out evenly to those of its bins that have any, (fractions, bins)."""
    slot = level + np.arange(len(level))[:, None] * levels
    size = len(level) * levels
    sums = np.bincount(slot.ravel(), inside.ravel(), size)
    filled = np.bincount(slot.ravel(), (inside > 0).ravel(), size)
    return np.where(inside > 0, (sums / np.maximum(filled, 1))[slot], 0.0)


def _divergence(reference: np.ndarray, shares: np.ndarray) -> np.ndarray:
    p = reference / reference.sum(axis=1, keepdims=True)
    q = shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-300)
    q = np.where((p > 0) & (q == 0), _UNSEEN, q)
    logarithms = np.log(np.where(p > 0, p / np.where(q > 0, q, 1.0), 1.0))
    return np.asarray(np.einsum("fb,fb->f", p, logarithms))
