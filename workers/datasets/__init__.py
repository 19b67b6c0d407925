"""Data sets as arrays, by name: fetched, checked and cached under `home/datasets`. Knows nothing of splits."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from search_spaces.datasets import DATASETS
from search_spaces.extensions import with_installed
from workers.datasets.cifar import Cifar10, Cifar100
from workers.datasets.dataset import Dataset, DatasetUnavailableError
from workers.datasets.digits import Digits
from workers.datasets.fashion_mnist import FashionMnist
from workers.datasets.fashion_mnist_cluttered import FashionMnistCluttered
from workers.datasets.source import DatasetSource
from workers.progress import Progress, ignore_progress

__all__ = ["SOURCES", "Dataset", "DatasetSource", "DatasetUnavailableError", "installed_sources", "load_dataset"]

SOURCES: dict[str, type[DatasetSource]] = {
    source.info.name: source for source in (FashionMnist, FashionMnistCluttered, Digits, Cifar10, Cifar100)
}
assert SOURCES.keys() == DATASETS.keys()


@lru_cache(maxsize=1)
def installed_sources() -> dict[str, type[DatasetSource]]:
    """Those here, and those that the operator installed in this Python (`espalier.datasets`)."""
    return with_installed(SOURCES, "espalier.datasets", DatasetSource)


def load_dataset(name: str, home: Path, progress: Progress = ignore_progress) -> Dataset:
    """Load a data set that has a source, getting it first when the cache has not got it whole.

    Raises:
        DatasetUnavailableError: the name is unknown, or no source has it; the message says what to do.
    """
    sources = installed_sources()
    if name not in sources:
        raise DatasetUnavailableError(f"there is no data set {name!r} here; there are {', '.join(sorted(sources))}")
    return sources[name]().load(home / "datasets" / name, progress)
