from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.datasets import DATASETS, DatasetInfo
from search_spaces.network import InputContract
from workers.datasets import Dataset, load_dataset
from workers.splits import Splits, image_digests, make_splits, normalise

NAMES = ("train", "calibrate", "score", "confirm", "test")


def make_dataset(values: np.ndarray, labels: np.ndarray, test_values: np.ndarray, classes: int) -> Dataset:
    """One-pixel-pair images: few enough values make copies, within the pool and across to the test set."""
    info = DatasetInfo("made", "", classes, (1, 1, 2), (0.5,), (0.5,), len(values), len(test_values))
    images, test_images = (
        np.stack([v // 256, v % 256], 1).astype(np.uint8).reshape(-1, 1, 1, 2) for v in (values, test_values)
    )
    return Dataset(info, images, labels.astype(np.int64), test_images, np.zeros(len(test_values), np.int64))


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    count, different, classes = draw(st.integers(1, 400)), draw(st.integers(1, 2000)), draw(st.integers(1, 5))
    values, test_values = generator.integers(different, size=count), generator.integers(different, size=20)
    return make_dataset(values, generator.integers(classes, size=count), test_values, classes)


def images_of(splits: Splits, name: str) -> list[bytes]:
    return [image.tobytes() for image in getattr(splits, name).images]


@given(datasets())
def test_no_image_is_in_two_splits_and_none_is_lost(dataset):
    splits = make_splits(dataset)
    parts = {name: images_of(splits, name) for name in NAMES}
    assert sum(len(set(part)) for part in parts.values()) == len(set().union(*parts.values()))
    in_pool = sum(len(part) for name, part in parts.items() if name != "test")
    assert in_pool + splits.dropped == len(dataset.images)
    assert sorted(parts["test"]) == sorted(image.tobytes() for image in dataset.test_images)


@given(datasets(), st.integers(0, 2**32))
def test_the_order_of_the_data_set_does_not_matter(dataset, seed):
    order = np.random.default_rng(seed).permutation(len(dataset.images))
    shuffled = Dataset(
        dataset.info, dataset.images[order], dataset.labels[order], dataset.test_images, dataset.test_labels
    )
    assert make_splits(shuffled).digests() == make_splits(dataset).digests()


@given(datasets())
def test_images_keep_their_labels(dataset):
    def pairs(images: np.ndarray, labels: np.ndarray) -> set[tuple[bytes, int]]:
        return {(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)}

    splits = make_splits(dataset)
    pool = pairs(dataset.images, dataset.labels)
    for split in (splits.train, splits.calibrate, splits.score, splits.confirm):
        assert pairs(split.images, split.labels) <= pool


def test_fashion_mnist_sized_data_gets_the_sizes_stated_in_each_class():
    values = np.arange(60_000)
    splits = make_splits(make_dataset(values, values % 10, np.arange(60_000, 65_000), 10))
    sizes = {name: len(getattr(splits, name)) for name in NAMES}
    assert sizes == {"train": 50_000, "calibrate": 2_000, "score": 3_000, "confirm": 5_000, "test": 5_000}
    for split in (splits.train, splits.calibrate, splits.score, splits.confirm):
        assert np.unique(np.bincount(split.labels, minlength=10)).tolist() == [len(split) // 10]


def test_copies_train_whatever_their_labels():
    values = np.concatenate([np.arange(1000), np.arange(30)])
    splits = make_splits(make_dataset(values, np.arange(1030) % 3, np.arange(5000, 5010), 3))
    copies = {image.tobytes() for image in make_dataset(np.arange(30), np.zeros(30), np.arange(1), 1).images}
    assert sum(image in copies for image in images_of(splits, "train")) == 60


def test_what_the_test_set_has_too_is_dropped():
    splits = make_splits(make_dataset(np.arange(1000), np.arange(1000) % 2, np.arange(990, 1100), 2))
    assert splits.dropped == 10
    assert len(splits.test) == 110


def test_digests_tell_images_and_labels_apart():
    values, labels, test = np.arange(300), np.arange(300) % 2, np.arange(1000, 1010)
    before = make_splits(make_dataset(values, labels, test, 2)).digests()
    assert len(set(before.values())) == 5
    assert before["test"] != make_splits(make_dataset(values, labels, test + 1, 2)).digests()["test"]
    assert before["train"] != make_splits(make_dataset(values, 1 - labels, test, 2)).digests()["train"]


def test_splits_of_digits_are_what_they_always_were():
    splits = make_splits(load_dataset("digits", Path("unused")))
    assert {name: len(getattr(splits, name)) for name in NAMES} == {
        "train": 813,
        "calibrate": 144,
        "score": 240,
        "confirm": 240,
        "test": 360,
    }
    assert splits.digests()["train"].startswith("82cd0600")


def test_digests_of_images_survive_zero_bytes():
    assert len(np.unique(image_digests(np.eye(200, dtype=np.uint8)[:, None, None]))) == 200


def test_first():
    split = make_splits(load_dataset("digits", Path("unused"))).score
    assert len(split.first(100)) == 100
    assert split.first(10_000) is split
    assert split.first(100).digest != split.digest
    assert np.bincount(split.first(120).labels, minlength=10).min() >= 3


@pytest.mark.parametrize("name", DATASETS)
def test_normalise_follows_the_contract(name):
    info = DATASETS[name]
    images = np.random.default_rng(0).integers(256, size=(5, *info.shape)).astype(np.uint8)
    out = normalise(images, InputContract(info.shape, info.mean, info.std))
    expected = (images / 255 - np.reshape(info.mean, (-1, 1, 1))) / np.reshape(info.std, (-1, 1, 1))
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, expected, atol=1e-5)
