"""Images that are rows of arrays in a zip archive. A place is a row's number, counted on from array to array.

Arrays are read as streams, row by row: however large they are, and however they are compressed, one image is in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from workers.datasets.archive import READ_ERRORS
from workers.datasets.contents import MAX_IMAGES, Pictures
from workers.datasets.picture import MAX_PIXELS, Picture, picture_of
from workers.datasets.refusal import UnreadableError, refuse


@dataclass(frozen=True, slots=True)
class ImageArray:
    """An array of uint8 pixels in an archive.

    Attributes:
        name: that people know it by.
        shape: (n, height, width) or (n, height, width, channels).
        open: gives a stream that begins with the first pixel.

    Raises:
        DatasetRefusedError: on construction, when these are not the shapes of images.
    """

    name: str
    shape: tuple[int, ...]
    open: Callable[[], BinaryIO]

    def __post_init__(self) -> None:
        channels = self.shape[3] if len(self.shape) == 4 else 1
        if len(self.shape) not in (3, 4) or channels not in (1, 3, 4):
            message = (
                f"has the shape {self.shape}; make it (images, height, width) or (images, height, width, channels)"
            )
            raise refuse(self.name, f"{message} with 1, 3 or 4 channels, which come last")
        if not 0 < math.prod(self.shape[1:3]) <= MAX_PIXELS:
            raise refuse(
                self.name, f"has images of {self.shape[1:3]} pixels; make them 1 to {MAX_PIXELS:,} pixels large"
            )
        if self.shape[0] > MAX_IMAGES:
            raise refuse(self.name, f"has {self.shape[0]:,} images; leave out some, {MAX_IMAGES:,} are allowed")

    def __len__(self) -> int:
        return self.shape[0]


class ArrayRows(Pictures):
    """Each image is a row of one of several arrays."""

    def __init__(self, arrays: Sequence[ImageArray]) -> None:
        self._arrays = arrays

    def part(self, place: int) -> str:
        for array in self._arrays:
            if place < len(array):
                return f"{array.name}, row {place}"
            place -= len(array)
        raise IndexError(place)

    def read(self, places: np.ndarray) -> Iterator[Picture | UnreadableError]:
        first = 0
        for array in self._arrays:
            rows = places[(places >= first) & (places < first + len(array))] - first
            yield from _read_rows(array, rows)
            first += len(array)


def _read_rows(array: ImageArray, rows: np.ndarray) -> Iterator[Picture]:
    """The pictures of ascending rows. The stream is read to the last of them; to its end, when that is the last row.

    Raises:
        DatasetRefusedError: the stream is damaged, or is longer or shorter than declared.
    """
    row_bytes = math.prod(array.shape[1:])
    row = -1
    if not len(rows):
        return
    try:
        with array.open() as stream:
            for wanted in rows.tolist():
                while row < wanted:
                    data = stream.read(row_bytes)
                    row += 1
                    if len(data) < row_bytes:
                        raise EOFError("it ends there")
                if row == len(array) - 1 and stream.read(1):  # which also compares checksums
                    raise EOFError("it goes on after the last row")
                yield picture_of(np.frombuffer(data, dtype=np.uint8).reshape(array.shape[1:]))
    except READ_ERRORS as error:
        raise refuse(array.name, f"is damaged at row {max(row, 0):,} ({error}); save it and send it again") from error
