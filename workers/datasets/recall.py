"""Reads images of an indexed data set again, and makes sure that they are still what was indexed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from workers.datasets.dataset import DatasetUnavailableError
from workers.datasets.formats import open_pictures
from workers.datasets.index import Index
from workers.datasets.picture import Picture, picture_digest
from workers.datasets.refusal import UnreadableError

Visit = Callable[[int, Image.Image], None]
"""Called with a row of the index and its image, upright, grey or in colour."""


def recall_images(index: Index, archives: Sequence[Path], rows: np.ndarray, visit: Visit) -> None:
    """Show the images of these rows one at a time, in the order in which the archives have them.

    Args:
        index: of the data set.
        archives: the same as when it was indexed, or more.
        rows: numbers of rows, in any order.
        visit: may raise to stop.

    Raises:
        DatasetUnavailableError: an archive is missing, or has other images now.
        DatasetRefusedError: an archive cannot be opened any more.
    """
    rows = rows[np.lexsort((index.rows.places[rows], index.rows.archives[rows]))]
    for number in np.unique(index.rows.archives[rows]).tolist():
        if number >= len(archives) or not archives[number].is_file():
            raise DatasetUnavailableError(f"archive {number + 1} of {index.name} is missing; hand it over again")
        mine = rows[index.rows.archives[rows] == number]
        with open_pictures(archives[number]) as pictures:
            # `map` lets go of each picture before the next is decoded.
            for _ in map(partial(_check, index, visit), mine.tolist(), pictures.read(index.rows.places[mine])):
                pass


def _check(index: Index, visit: Visit, row: int, picture: Picture | UnreadableError) -> None:
    if isinstance(picture, UnreadableError) or picture_digest(picture.image) != index.rows.digests[row]:
        number = int(index.rows.archives[row]) + 1
        raise DatasetUnavailableError(f"archive {number} of {index.name} is not what was indexed; hand it over again")
    visit(row, picture.image)
