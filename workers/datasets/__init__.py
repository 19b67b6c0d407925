"""Data sets as arrays, by name: fetched, checked and cached under `home/datasets`. Knows nothing of splits."""

from __future__ import annotations

from pathlib import Path

from search_spaces.datasets import DATASETS
from workers.datasets.cifar import ARCHIVES, load_cifar
from workers.datasets.dataset import Dataset, DatasetUnavailableError
from workers.datasets.digits import load_digits
from workers.datasets.fashion_mnist import load_fashion_mnist
from workers.progress import Progress, ignore_progress

__all__ = ["Dataset", "DatasetUnavailableError", "load_dataset"]


def load_dataset(name: str, home: Path, progress: Progress = ignore_progress) -> Dataset:
    """Load one of `search_spaces.datasets.DATASETS`, getting it first when the cache has not got it whole.

    Raises:
        DatasetUnavailableError: the name is unknown, or no source has it; the message says what to do.
    """
    folder = home / "datasets" / name
    if name == "digits":
        return load_digits()
    if name == "fashion_mnist":
        return load_fashion_mnist(folder, progress)
    if name in ARCHIVES:
        return load_cifar(DATASETS[name], ARCHIVES[name], folder, progress)
    raise DatasetUnavailableError(f"there is no data set {name!r}; there are {', '.join(sorted(DATASETS))}")
