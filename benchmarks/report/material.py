"""What experiments begin with: splits, bases of several seeds, and how good a network is on unseen images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy import stats

from search_spaces.catalog import build_for
from search_spaces.datasets import DATASETS
from search_spaces.network import Network
from search_spaces.spec import Family, NetworkSpec
from workers.base import Base, get_base
from workers.datasets import load_dataset
from workers.onnx_quantize import TensorRange
from workers.onnx_writer import write_onnx
from workers.recipe import Recipe
from workers.score import predict
from workers.splits import Split, Splits, make_splits

THREADS = 1
"""Networks this small gain a third more from a second chapter beside them than from a second thread."""


@dataclass(frozen=True)
class Bench:
    """Where everything is kept.

    Attributes:
        home: bases and data sets are found here again.
    """

    home: Path

    def splits(self, dataset: str) -> Splits:
        return _splits(dataset, self.home)

    def network(self, family: Family, width: float, dataset: str, stem_stride: int | None = None) -> Network:
        """A catalog network for the data set."""
        info = DATASETS[dataset]
        spec = NetworkSpec(family=family, width=width, input=info.shape, stem_stride=stem_stride)
        return build_for(spec, info)

    def base(self, network: Network, dataset: str, recipe: Recipe) -> Base:
        """Trained by a recipe, or found."""
        return get_base(network, self.splits(dataset), recipe, self.home)


@lru_cache(maxsize=2)
def _splits(dataset: str, home: Path) -> Splits:
    return make_splits(load_dataset(dataset, home))


def accuracy(
    network: Network, weights: Mapping[str, np.ndarray], split: Split, ranges: Mapping[str, TensorRange] | None = None
) -> float:
    """Share of images right, by the file in ONNX Runtime; of a folded network."""
    outputs = predict(write_onnx(network, weights, ranges), split.images, network.input, THREADS)
    return float((outputs.argmax(axis=1) == split.labels).mean())


def mean_and_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and the ends of its 95% interval over seeds, by Student's t; of one value that value itself."""
    array = np.asarray(values, float)
    mean = float(array.mean())
    if len(array) < 2:
        return mean, mean, mean
    half = float(stats.t.ppf(0.975, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array)))
    return mean, mean - half, mean + half
