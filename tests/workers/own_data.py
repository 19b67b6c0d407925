"""Makes users' data sets for tests: images from a seed, and the archives that hold them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from workers.datasets.index import Index, SplitNumber


def picture(seed: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Image.Image:
    """An image of (width, height) that no other seed gives."""
    width, height = size
    pixels = np.random.default_rng(seed).integers(256, size=(height, width, 3)).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(seed: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> bytes:
    return encode(picture(seed, size, mode))


def make_zip(path: Path, members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def classes(counts: Mapping[str, int], first: int = 0, mode: str = "RGB") -> dict[str, bytes]:
    """Files in class folders: so many different images of each class."""
    files = {}
    for name, count in counts.items():
        files |= {f"{name}/{number}.png": png(number, mode=mode) for number in range(first, first + count)}
        first += count
    return files


def make_npz(path: Path, images: np.ndarray, labels: np.ndarray, **others: np.ndarray) -> Path:
    np.savez(path, images=images, labels=labels, **others)
    return path


def numbered(values: np.ndarray) -> np.ndarray:
    """Grey images of two pixels, one for each number below 65,536: uint8 (n, 1, 2)."""
    return np.stack([values // 256, values % 256], axis=1).astype(np.uint8)[:, None]


def split_of(index: Index) -> dict[int, tuple[str, float]]:
    """Split and label by the digest of each image."""
    names = [SplitNumber(number).name for number in index.splits]
    return dict(zip(index.rows.digests.tolist(), zip(names, index.rows.labels.tolist(), strict=True), strict=True))


def notes(index: Index) -> dict[str, dict[str, Any]]:
    """The report's notes by their kinds."""
    return {note["kind"]: note for note in index.report["notes"]}
