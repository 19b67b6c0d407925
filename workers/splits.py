"""Divides a data set into train, calibrate, score, confirm and test by the images' own digests.

The same images always land in the same splits, whatever order they are stored in. No image is in two.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from search_spaces.datasets import Task, held_out_shares
from search_spaces.network import InputContract
from workers.datasets.dataset import Dataset, big_endian
from workers.strata import apportion, find_bins, find_edges

SPLIT_NAMES = ("train", "calibrate", "score", "confirm", "test")


@dataclass(frozen=True)
class Split:
    """Images for one purpose, in the order of their digests, which is as good as random.

    Attributes:
        images: uint8 (n, C, H, W); those of a user's data set are mapped from a file, and then read-only.
        labels: int64 (n) numbers of classes, or float32 (n) values where the task is regression.
        digest: of all images and labels; equal for equal content.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    digest: str

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int) -> Split:
        """The first `count` images, or all when there are fewer."""
        if count >= len(self):
            return self
        return Split(self.name, self.images[:count], self.labels[:count], f"{self.digest}:{count}")

    def after(self, count: int) -> Split:
        """The images behind the first `count`."""
        return Split(self.name, self.images[count:], self.labels[count:], f"{self.digest}:{count}:")

    def renumbered(self, numbers: np.ndarray) -> Split:
        """With other numbers for the classes: `numbers[label]` for each label. The digest stays that of the content."""
        return replace(self, labels=numbers[self.labels])

    def take(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Copies of the images and labels of these rows: nothing else is read, and they may be written to."""
        return self.images[rows], self.labels[rows]


@dataclass(frozen=True, eq=False)
class Splits:
    """The five splits of the data set called `dataset`.

    Attributes:
        dropped: images that were left out because the test set has them too.
    """

    dataset: str
    train: Split
    calibrate: Split
    score: Split
    confirm: Split
    test: Split
    dropped: int

    def renumbered(self, numbers: np.ndarray) -> Splits:
        """See `Split.renumbered`."""
        parts = {name: getattr(self, name).renumbered(numbers) for name in SPLIT_NAMES}
        return replace(self, **parts)

    def digests(self) -> dict[str, str]:
        return {name: getattr(self, name).digest for name in SPLIT_NAMES}


def normalise(images: np.ndarray, contract: InputContract) -> np.ndarray:
    """uint8 (n, C, H, W) to what a network is fed: float32 (x / 255 - mean) / std, per channel."""
    mean = np.asarray(contract.mean, dtype=np.float32).reshape(-1, 1, 1)
    std = np.asarray(contract.std, dtype=np.float32).reshape(-1, 1, 1)
    return images.astype(np.float32) * (1 / (255 * std)) - mean / std


def make_splits(dataset: Dataset) -> Splits:
    """Split the pool by class (or by bins of values) and digest; `test` is the data set's own test set.

    An image that occurs several times in the pool is for training, with all its copies. One that the test
    set has too is dropped from the pool. So training gets what is left: about 50,000 of Fashion-MNIST's 60,000.
    """
    digests, test_digests = image_digests(dataset.images), image_digests(dataset.test_images)
    in_test = np.isin(digests, test_digests)
    chosen = _choose(digests, _strata(dataset), ~in_test)
    is_training = ~in_test
    is_training[np.concatenate(list(chosen.values()))] = False
    chosen["train"] = np.flatnonzero(is_training)
    parts = {
        name: _make_split(name, dataset.images[rows], dataset.labels[rows], digests[rows])
        for name, rows in chosen.items()
    }
    test = _make_split("test", dataset.test_images, dataset.test_labels, test_digests)
    return Splits(dataset.info.name, **parts, test=test, dropped=int(in_test.sum()))


def image_digests(images: np.ndarray) -> np.ndarray:
    """8-byte BLAKE2 digests of each image's bytes, as uint64 (n).

    Should two of 70,000 images ever share one (odds of 1 in 10^10), they are treated as copies, which harms nothing.
    """
    rows = np.ascontiguousarray(images).reshape(len(images), -1)
    digests = b"".join(hashlib.blake2b(row.data, digest_size=8).digest() for row in rows)
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64)


def _strata(dataset: Dataset) -> np.ndarray:
    if dataset.info.task is Task.CLASSIFICATION:
        return dataset.labels
    return find_bins(dataset.labels, find_edges(dataset.labels))


def _choose(digests: np.ndarray, strata: np.ndarray, allowed: np.ndarray) -> dict[str, np.ndarray]:
    """Rows of the held-out splits: of each stratum the first singletons by digest."""
    _, group, copies = np.unique(digests, return_inverse=True, return_counts=True)
    candidates = np.flatnonzero(allowed & (copies[group] == 1))
    candidates = candidates[np.argsort(group[candidates], kind="stable")]
    shares = held_out_shares(len(strata))
    counts = np.bincount(strata)
    by_stratum = [candidates[strata[candidates] == stratum] for stratum in range(len(counts))]
    chosen: dict[str, np.ndarray] = {}
    for name, share in shares.items():
        quotas = apportion(counts, share)
        chosen[name] = np.concatenate([rows[:quota] for rows, quota in zip(by_stratum, quotas, strict=True)])
        by_stratum = [rows[quota:] for rows, quota in zip(by_stratum, quotas, strict=True)]
    return chosen


def _make_split(name: str, images: np.ndarray, labels: np.ndarray, digests: np.ndarray) -> Split:
    order = np.lexsort((labels, digests))
    digest = hashlib.sha256(digests[order].astype(">u8").tobytes() + big_endian(labels[order]).tobytes()).hexdigest()
    return Split(name, np.ascontiguousarray(images[order]), labels[order], digest)
