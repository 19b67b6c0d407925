"""Seats for classes, and values as classes: what splits are stratified by. Knows no images."""

from __future__ import annotations

import numpy as np

IN_EVERY_SPLIT = 8
"""A class with so many images has at least one in each split."""
MOST_BINS = 10


def apportion(counts: np.ndarray, share: float) -> list[int]:
    """Seats per class that add up to the rounded share of all (largest remainders; ties to the lower class)."""
    exact = counts * share
    seats = np.floor(exact).astype(int)
    missing = round(float(exact.sum())) - int(seats.sum())
    seats[np.argsort(seats - exact, kind="stable")[:missing]] += 1
    return [int(number) for number in seats]


def find_edges(values: np.ndarray) -> np.ndarray:
    """Where bins of equally many values end: at most ten bins, with IN_EVERY_SPLIT values or more in each."""
    bins = max(1, min(MOST_BINS, len(values) // IN_EVERY_SPLIT))
    edges = np.unique(np.quantile(values.astype(np.float64), np.arange(1, bins) / bins, method="higher"))
    inner: np.ndarray = edges[edges > values.min()]
    return inner


def find_bins(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The bin of each value, from 0."""
    bins: np.ndarray = np.searchsorted(edges, values.astype(np.float64), side="right")
    return bins
