"""Fashion-MNIST made harder by a stated rule: turned, scaled and moved, with scraps of other pictures around it.

Fashion-MNIST saturates: small networks and low bits are right as often as large ones, so that little can differ. Here
each picture is

1. moved by up to 3 pixels each way, then turned by up to 30 degrees and scaled by .7 to 1.1 (bilinear);
2. strewn with 4 scraps of 8 x 8 pixels, each cut from a random place of a random other picture of the same set and
   put at a random place; the lighter of two pixels stays.

Everything is drawn by one generator of a fixed seed, and computed in whole numbers of 1/256 pixel, so that all
machines get the same bytes; their digest is pinned.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from search_spaces.datasets import DATASETS
from service.files import write_atomically
from workers.datasets.dataset import Dataset, DatasetUnavailableError
from workers.datasets.fashion_mnist import FashionMnist
from workers.datasets.source import DatasetSource
from workers.progress import Progress

SEED = 2027
MOST_DEGREES, SCALES, MOST_SHIFT = 30.0, (0.7, 1.1), 3.0
SCRAPS, SCRAP_SIDE = 4, 8
DIGESTS = {
    "images": "f5ccd4e943ad4153e2a6597db16a2117b37fc0f42dbeace25284a8e37e25f4a8",
    "test_images": "d264b0c18dbe3d96fc9e03dd9ca223f0849a57153cc388eb18f44dca05f7bb0d",
}

_UNIT = 256
_AT_ONCE = 5_000


class FashionMnistCluttered(DatasetSource):
    """See the module."""

    info = DATASETS["fashion_mnist_cluttered"]

    def load(self, folder: Path, progress: Progress) -> Dataset:
        plain = FashionMnist().load(folder.parent / FashionMnist.info.name, progress)
        images = _get("images", plain.images, folder, progress)
        test_images = _get("test_images", plain.test_images, folder, progress)
        return Dataset(self.info, images, plain.labels, test_images, plain.test_labels)


def _get(part: str, plain: np.ndarray, folder: Path, progress: Progress) -> np.ndarray:
    """From the cache where that is whole, else made now."""
    path = folder / part
    kept = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(kept).hexdigest() != DIGESTS[part]:
        kept = clutter(plain, progress).tobytes()
        if hashlib.sha256(kept).hexdigest() != DIGESTS[part]:
            raise DatasetUnavailableError(
                "Fashion-MNIST came out otherwise than it should: this machine rounds otherwise"
            )
        write_atomically(path, kept)
    return np.frombuffer(kept, np.uint8).reshape(plain.shape)


def clutter(images: np.ndarray, progress: Progress) -> np.ndarray:
    """The rule, of uint8 (n, 1, H, W) images."""
    generator = np.random.default_rng(SEED)
    made = np.empty_like(images)
    for start in range(0, len(images), _AT_ONCE):
        progress("dataset", start / len(images), f"cluttering {len(images):,} pictures")
        some = images[start : start + _AT_ONCE, 0]
        made[start : start + _AT_ONCE, 0] = _strew(_move(some, generator), images[:, 0], generator)
    return made


def _move(images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Each image (n, H, W) moved, turned and scaled by its own lot; what comes in is black."""
    count, height, width = images.shape
    angle = np.radians(generator.uniform(-MOST_DEGREES, MOST_DEGREES, count))
    scale = generator.uniform(*SCALES, count)
    shift = np.rint(generator.uniform(-MOST_SHIFT, MOST_SHIFT, (2, count, 1, 1)) * _UNIT).astype(np.int64)
    cosine, sine = (np.rint(part(angle) / scale * _UNIT).astype(np.int64)[:, None, None] for part in (np.cos, np.sin))
    y, x = np.meshgrid(2 * np.arange(height) - height + 1, 2 * np.arange(width) - width + 1, indexing="ij")
    # Twice the distance from the centre, so that it is whole; in units of 1/256 pixel.
    from_y = (cosine * y + sine * x) // 2 + (height - 1) * _UNIT // 2 + shift[0]
    from_x = (cosine * x - sine * y) // 2 + (width - 1) * _UNIT // 2 + shift[1]
    return _bilinear(images, from_y, from_x)


def _bilinear(images: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Images (n, H, W) at places (n, H, W) in units of 1/256 pixel."""
    padded = np.pad(images, ((0, 0), (1, 2), (1, 2)))
    height, width = images.shape[1:]
    rows, columns = np.clip(y // _UNIT + 1, 0, height + 1), np.clip(x // _UNIT + 1, 0, width + 1)
    inside = (y >= -_UNIT) & (y < height * _UNIT) & (x >= -_UNIT) & (x < width * _UNIT)
    down, right = y % _UNIT, x % _UNIT
    each = np.arange(len(images))[:, None, None]
    total = sum(
        padded[each, rows + below, columns + beside].astype(np.int64)
        * (down if below else _UNIT - down)
        * (right if beside else _UNIT - right)
        for below in (0, 1)
        for beside in (0, 1)
    )
    return np.where(inside, (total + _UNIT**2 // 2) // _UNIT**2, 0).astype(np.uint8)


def _strew(images: np.ndarray, others: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Put scraps of other pictures (m, H, W) into each image (n, H, W)."""
    count, height, width = images.shape
    strewn = images.copy()
    each = np.arange(count)[:, None, None]
    within = np.arange(SCRAP_SIDE)

    def draw(choices: int) -> np.ndarray:
        return np.asarray(generator.integers(choices, size=count))

    for _ in range(SCRAPS):
        other = draw(len(others))
        from_y, to_y = draw(height - SCRAP_SIDE + 1), draw(height - SCRAP_SIDE + 1)
        from_x, to_x = draw(width - SCRAP_SIDE + 1), draw(width - SCRAP_SIDE + 1)
        scraps = others[
            other[:, None, None], (from_y[:, None] + within)[:, :, None], (from_x[:, None] + within)[:, None, :]
        ]
        place = (each, (to_y[:, None] + within)[:, :, None], (to_x[:, None] + within)[:, None, :])
        strewn[place] = np.maximum(strewn[place], scraps)
    return strewn
