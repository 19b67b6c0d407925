"""The harder Fashion-MNIST: what its rule does to pictures, and that every machine gets the same ones."""

from pathlib import Path

import numpy as np
import pytest

from workers.datasets import fashion_mnist
from workers.datasets.dataset import DatasetUnavailableError
from workers.datasets.fashion_mnist_cluttered import (
    DIGESTS,
    SCRAP_SIDE,
    SCRAPS,
    FashionMnistCluttered,
    _bilinear,
    _move,
    _strew,
    clutter,
)
from workers.datasets.source import DatasetSource
from workers.datasets.testing import DatasetSourceContract
from workers.progress import ignore_progress


@pytest.mark.skipif(not fashion_mnist.DEBIAN_FOLDER.is_dir(), reason="needs Debian's dataset-fashion-mnist")
class TestContract(DatasetSourceContract):
    def make_source(self) -> DatasetSource:
        return FashionMnistCluttered()

    def test_a_damaged_cache_is_made_again(self, loaded: tuple[object, Path]) -> None:
        path = loaded[1] / "test_images"
        whole = path.read_bytes()
        path.write_bytes(b"x" + whole[1:])
        assert FashionMnistCluttered().load(loaded[1], ignore_progress).test_images.tobytes() == whole
        assert path.read_bytes() == whole

    def test_other_bytes_than_those_pinned_are_not_taken(
        self, loaded: tuple[object, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(DIGESTS, "test_images", "0" * 64)
        with pytest.raises(DatasetUnavailableError, match="rounds otherwise"):
            FashionMnistCluttered().load(loaded[1], ignore_progress)


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 1, 28, 28), dtype=np.uint8)


def test_places_between_pixels_are_weighed(pictures) -> None:
    y, x = np.meshgrid(np.arange(28) * 256, np.arange(28) * 256, indexing="ij")
    images, shape = pictures[:, 0], (40, 28, 28)
    np.testing.assert_array_equal(_bilinear(images, np.broadcast_to(y, shape), np.broadcast_to(x, shape)), images)
    halfway = _bilinear(images, np.broadcast_to(y, shape), np.broadcast_to(x + 128, shape))
    between = (images[:, :, :-1].astype(int) + images[:, :, 1:] + 1) // 2
    np.testing.assert_array_equal(halfway[:, :, :-1], between)


def test_a_picture_stays_about_where_it_was() -> None:
    spot = np.zeros((500, 28, 28), np.uint8)
    spot[:, 12:16, 12:16] = 255
    moved = _move(spot, np.random.default_rng(1)).astype(float)
    total = moved.sum(axis=(1, 2))
    for axis in (1, 2):
        centre = (moved.sum(axis=3 - axis) * np.arange(28)).sum(axis=1) / total
        assert np.abs(centre - 13.5).max() < 1.1 * 3 * np.sqrt(2)
        assert np.ptp(centre) > 5
    side = np.sqrt(total / 255)  # 4 pixels, scaled
    assert side.min() == pytest.approx(4 * 0.7, rel=0.05)
    assert side.max() == pytest.approx(4 * 1.1, rel=0.05)


def test_scraps_are_of_other_pictures_and_only_lighten() -> None:
    images, others = np.zeros((30, 28, 28), np.uint8), np.full((5, 28, 28), 200, np.uint8)
    strewn = _strew(images, others, np.random.default_rng(2))
    assert set(np.unique(strewn)) == {0, 200}
    area = (strewn == 200).sum(axis=(1, 2))
    assert SCRAP_SIDE**2 <= area.min() < area.max() <= SCRAPS * SCRAP_SIDE**2
    np.testing.assert_array_equal(_strew(others, images, np.random.default_rng(2)), others)


def test_the_same_pictures_come_out_the_same_and_are_left_alone(pictures) -> None:
    before = pictures.copy()
    first, second = (clutter(pictures, ignore_progress) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(pictures, before)
    assert (first != pictures).mean() > 0.5
