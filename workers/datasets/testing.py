"""What every DatasetSource must do, as tests. Subclass it in a test module and say which data set.

class TestMyDataset(DatasetSourceContract):
    def make_source(self) -> DatasetSource:
        return MyDataset()
"""

from __future__ import annotations

import json
from abc import abstractmethod
from pathlib import Path

import numpy as np
import pytest

from search_spaces.datasets import Task, dataset_from_json, dataset_to_json
from workers.datasets.dataset import Dataset
from workers.datasets.source import DatasetSource
from workers.progress import ignore_progress
from workers.splits import SPLIT_NAMES, make_splits

_LOADED: dict[type, tuple[Dataset, Path]] = {}


class DatasetSourceContract:
    """See `workers.datasets.source.DatasetSource`."""

    @abstractmethod
    def make_source(self) -> DatasetSource:
        """The source under test."""

    @pytest.fixture
    def loaded(self, tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Path]:
        """The data set, and the folder that it was loaded into: once for all tests, since it may take long."""
        if type(self) not in _LOADED:
            folder = tmp_path_factory.mktemp("data set") / "not there yet"
            _LOADED[type(self)] = self.make_source().load(folder, ignore_progress), folder
        return _LOADED[type(self)]

    @pytest.fixture
    def dataset(self, loaded: tuple[Dataset, Path]) -> Dataset:
        return loaded[0]

    def test_it_is_told_without_loading_it(self) -> None:
        info = self.make_source().info
        assert dataset_from_json(json.loads(json.dumps(dataset_to_json(info)))) == info
        assert info.digest == "", "only what users hand over has one"
        assert not info.is_resized
        assert len(info.mean) == len(info.std) == info.shape[0]
        assert min(info.std) > 0
        assert len(info.class_names) in (0, info.classes)
        assert (info.classes == 0) == (info.task is Task.REGRESSION)

    def test_it_is_as_it_was_told(self, dataset: Dataset) -> None:
        info = self.make_source().info
        assert dataset.info == info
        assert (len(dataset.images), len(dataset.test_images)) == (info.images, info.test_images)
        if info.task is Task.CLASSIFICATION:
            assert set(np.unique(dataset.labels)) == set(range(info.classes))

    def test_its_mean_and_deviation_are_those_of_its_images(self, dataset: Dataset) -> None:
        """Roughly: a data set may have been normalised otherwise for a reason."""
        pixels = dataset.images[: 20_000 // dataset.info.shape[0]].astype(np.float64) / 255
        np.testing.assert_allclose(pixels.mean(axis=(0, 2, 3)), dataset.info.mean, atol=0.1)
        np.testing.assert_allclose(pixels.std(axis=(0, 2, 3)), dataset.info.std, atol=0.1)

    def test_loading_it_again_gives_the_same(self, loaded: tuple[Dataset, Path]) -> None:
        dataset, folder = loaded
        again = self.make_source().load(folder, ignore_progress)
        for name in ("images", "labels", "test_images", "test_labels"):
            np.testing.assert_array_equal(getattr(again, name), getattr(dataset, name))

    def test_there_is_something_in_every_split(self, dataset: Dataset) -> None:
        splits = make_splits(dataset)
        for name in SPLIT_NAMES:
            assert len(getattr(splits, name)) > 0 or (name == "test" and not dataset.info.test_images)
