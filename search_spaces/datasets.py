"""What a search must know of a data set without loading it. The loading is in `workers.datasets`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

SMALL_DATASET_IMAGES = 10_000
MOST_LETTERS = 100
"""Of the name of a class."""


class Task(StrEnum):
    """What is to be told of an image."""

    CLASSIFICATION = "classification"  # which of several classes it is
    REGRESSION = "regression"  # a number


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """A data set's contract.

    Attributes:
        classes: how many there are; 0 for regression.
        shape: (channels, height, width) of one image; of most images where `is_resized`.
        mean, std: per channel, of pixel values in [0, 1].
        images: number of images that may be split into train, calibrate, score and confirm.
        test_images: size of the official test set, which becomes the split `test`; may be 0.
        class_names: in the order of the labels; empty where they have no names.
        digest: of all images and labels of a user's data set; empty for those that Espalier knows by itself.
        held_out: size of each held-out split, where it does not follow from `images`.
        is_resized: whether images are brought to what a network's input contract asks for; else they must be that.
    """

    name: str
    description: str
    classes: int
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    images: int
    test_images: int
    task: Task = Task.CLASSIFICATION
    class_names: tuple[str, ...] = ()
    digest: str = ""
    held_out: Mapping[str, int] = field(default_factory=dict, hash=False)
    is_resized: bool = False

    def split_size(self, split: str) -> int:
        """Images in the split `calibrate`, `score` or `confirm`."""
        if split in self.held_out:
            return self.held_out[split]
        return round(self.images * held_out_shares(self.images)[split])

    def statistics(self, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation for so many channels: of the colours together when they are shown in grey."""
        if channels == len(self.mean):
            return self.mean, self.std
        mean, std = sum(self.mean) / len(self.mean), sum(self.std) / len(self.std)
        return (mean,) * channels, (std,) * channels


def dataset_to_json(info: DatasetInfo) -> dict[str, Any]:
    """Plain JSON types."""
    return {
        "name": info.name,
        "description": info.description,
        "classes": info.classes,
        "shape": list(info.shape),
        "mean": list(info.mean),
        "std": list(info.std),
        "images": info.images,
        "test_images": info.test_images,
        "task": str(info.task),
        "class_names": list(info.class_names),
        "digest": info.digest,
        "held_out": dict(info.held_out),
        "is_resized": info.is_resized,
    }


def dataset_from_json(data: Mapping[str, Any]) -> DatasetInfo:
    """Inverse of `dataset_to_json`."""
    lists = {key: tuple(data[key]) for key in ("shape", "mean", "std", "class_names")}
    return DatasetInfo(**{**data, **lists, "task": Task(data["task"])})


def is_class_name(name: str) -> bool:
    """Whether pages, terminals and programs can show it."""
    return 0 < len(name) <= MOST_LETTERS and name.isprintable()


def held_out_shares(images: int) -> dict[str, float]:
    """Share of the images that each held-out split gets; the rest is for training.

    Of a small data set more is held out: accuracy told from a few dozen images says nothing.
    """
    if images < SMALL_DATASET_IMAGES:
        return {"calibrate": 1 / 10, "score": 1 / 6, "confirm": 1 / 6}
    return {"calibrate": 1 / 30, "score": 1 / 20, "confirm": 1 / 12}


_CIFAR_MEAN, _CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)

DATASETS: dict[str, DatasetInfo] = {
    info.name: info
    for info in (
        DatasetInfo(
            "fashion_mnist",
            "70,000 grey 28x28 pictures of clothes",
            10,
            (1, 28, 28),
            (0.2860,),
            (0.3530,),
            60_000,
            10_000,
        ),
        DatasetInfo(
            "fashion_mnist_cluttered",
            "Fashion-MNIST turned, scaled, moved and strewn with scraps of other pictures",
            10,
            (1, 28, 28),
            (0.2993,),
            (0.3562,),
            60_000,
            10_000,
        ),
        DatasetInfo(
            "digits",
            "1,797 grey 8x8 digits, shipped with scikit-learn",
            10,
            (1, 8, 8),
            (0.3053,),
            (0.3760,),
            1_437,
            360,
        ),
        DatasetInfo(
            "cifar10", "60,000 colour 32x32 pictures", 10, (3, 32, 32), _CIFAR_MEAN, _CIFAR_STD, 50_000, 10_000
        ),
        DatasetInfo(
            "cifar100",
            "60,000 colour 32x32 pictures",
            100,
            (3, 32, 32),
            (0.5071, 0.4865, 0.4409),
            (0.2673, 0.2564, 0.2762),
            50_000,
            10_000,
        ),
    )
}
