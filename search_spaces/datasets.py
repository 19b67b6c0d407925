"""What a search must know of a data set without loading it. The loading is in `workers.datasets`."""

from __future__ import annotations

from dataclasses import dataclass

SMALL_DATASET_IMAGES = 10_000


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """A data set's contract.

    Attributes:
        shape: (channels, height, width) of one image.
        mean, std: per channel, of pixel values in [0, 1].
        images: number of images that may be split into train, calibrate, score and confirm.
        test_images: size of the official test set, which becomes the split `test`.
    """

    name: str
    description: str
    classes: int
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    images: int
    test_images: int

    def split_size(self, split: str) -> int:
        """Images in the split `calibrate`, `score` or `confirm`."""
        return round(self.images * held_out_shares(self.images)[split])


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
