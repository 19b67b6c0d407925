"""Figures of a file as columns, before they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True)
class Chunk:
    """Figures, one array a column: workload, conditions, metric and origin as indices, the rest as stored."""

    row: np.ndarray
    workload: np.ndarray
    conditions: np.ndarray
    metric: np.ndarray
    median: np.ndarray
    lower_quartile: np.ndarray
    upper_quartile: np.ndarray
    count: np.ndarray
    anchor_ratio: np.ndarray
    origin: np.ndarray
    measured_us: np.ndarray
    samples: list[str]

    @staticmethod
    def joined(chunks: Sequence[Chunk]) -> Chunk:
        """All of them, in order; at least one."""
        arrays = [part.name for part in fields(Chunk) if part.name != "samples"]
        joined = {name: np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in arrays}
        return Chunk(**joined, samples=[text for chunk in chunks for text in chunk.samples])
