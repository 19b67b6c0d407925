"""What a search is done with, found by names and digests: its data set, and the network that it begins with.

Knows files under the home folder, and nothing of rows. Names that can come to mean something newer have a digest.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from search_spaces.catalog import build_for
from search_spaces.datasets import DatasetInfo
from search_spaces.known import Sources
from search_spaces.network import InputContract, Network
from search_spaces.spec import NetworkSpec, SearchSpec
from workers.base import Base, load_base
from workers.datasets import DatasetUnavailableError, installed_sources, load_dataset
from workers.datasets.kept import find_dataset
from workers.host_lock import training
from workers.progress import Progress, ignore_progress, yielding
from workers.splits import Splits, make_splits


def dataset_of(spec: SearchSpec, sources: Sources, home: Path) -> DatasetInfo:
    """What the data set is, without its images.

    Raises:
        DatasetUnavailableError: it is not here.
    """
    if sources.dataset is not None:
        return find_dataset(sources.dataset, home).info
    source = installed_sources().get(spec.dataset.name)
    if source is None:
        raise DatasetUnavailableError(f"this worker has no data set {spec.dataset.name!r}")
    return source.info


def network_of(spec: SearchSpec, sources: Sources, home: Path) -> Network:
    """The network that is to be compressed.

    Raises:
        BaseUnavailableError: it was imported, and its weights are not here.
        DatasetUnavailableError: its data set is not here.
    """
    if sources.network is not None:
        return base_of(sources.network, home).network
    assert isinstance(spec.network, NetworkSpec), "an imported network has a source"
    return build_for(spec.network, dataset_of(spec, sources, home))


@lru_cache(maxsize=2)
def base_of(key: str, home: Path) -> Base:
    """A base that is there, kept warm. Raises `BaseUnavailableError`."""
    return load_base(key, home)


def splits_of(
    spec: SearchSpec,
    sources: Sources,
    contract: InputContract,
    class_names: Sequence[str],
    home: Path,
    progress: Progress = ignore_progress,
) -> Splits:
    """The images, as a network is fed with them; the last ones asked for are kept warm.

    Args:
        spec: names the data set.
        sources: say which version of it.
        contract: of the network.
        class_names: in the order of the network's outputs; labels are numbered as they are. Empty: as the data set is.
        home: where everything is.
        progress: told what takes long.

    Raises:
        DatasetUnavailableError: the data set is not here.
    """
    # What is kept is found by all but who is told the progress.
    key = (spec.dataset.name, sources.dataset, contract if sources.dataset else None, tuple(class_names), home)
    if key not in _kept:
        _kept.clear()  # the images of one data set are enough
        splits = _load(spec, sources, contract, home, progress)
        _kept[key] = _number_as_outputs(splits, dataset_of(spec, sources, home).class_names, class_names)
    return _kept[key]


_kept: dict[tuple[object, ...], Splits] = {}


def _load(spec: SearchSpec, sources: Sources, contract: InputContract, home: Path, progress: Progress) -> Splits:
    progress("dataset", 0.0, f"getting {spec.dataset.name}")
    if sources.dataset is not None:
        kept = find_dataset(sources.dataset, home)
        with training() as turn:
            return kept.splits(contract, yielding(progress, turn.yield_))
    return make_splits(load_dataset(spec.dataset.name, home, progress))


def _number_as_outputs(splits: Splits, of_labels: Sequence[str], of_outputs: Sequence[str]) -> Splits:
    if not of_labels or not of_outputs or tuple(of_labels) == tuple(of_outputs):
        return splits
    number = {name: place for place, name in enumerate(of_outputs)}
    return splits.renumbered(np.array([number[name] for name in of_labels], dtype=np.int64))
