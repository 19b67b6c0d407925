"""Small pictures of each class, for people to see whether labels are what they think."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from search_spaces.datasets import Task
from search_spaces.network import InputContract
from workers.datasets.geometry import fit
from workers.datasets.index import Index, SplitNumber
from workers.datasets.recall import recall_images
from workers.strata import find_bins

MOST_CLASSES = 50
_GAP = 4


def preview(index: Index, archives: Sequence[Path], per_class: int = 6, size: int = 96) -> dict[str, bytes]:
    """A row of training images for each of the first classes, as PNG; for regression, for each bin of values.

    Args:
        index: of the data set.
        archives: that it was made of.
        per_class: images in a row; fewer where the class has fewer.
        size: height and width of each, in pixels.

    Raises:
        DatasetUnavailableError: an archive is missing or another.
    """
    contract = InputContract((3, size, size), (0.0,) * 3, (1.0,) * 3)
    names, strata = _strata(index)
    is_trained_on = index.splits == SplitNumber.TRAIN
    chosen = {
        name: np.flatnonzero(is_trained_on & (strata == number))[:per_class]
        for number, name in enumerate(names[:MOST_CLASSES])
    }
    sheets = {name: _blank(len(rows), size) for name, rows in chosen.items()}
    places = {int(row): (name, place) for name, rows in chosen.items() for place, row in enumerate(rows)}

    def paste(row: int, image: Image.Image) -> None:
        name, place = places[row]
        sheets[name].paste(fit(image, contract), (place * (size + _GAP), 0))

    recall_images(index, archives, np.array(list(places)), paste)
    return {name: _to_png(sheet) for name, sheet in sheets.items()}


def _strata(index: Index) -> tuple[Sequence[str], np.ndarray]:
    """Names of classes or bins, and which of them each row is in."""
    if index.task is Task.CLASSIFICATION:
        return index.class_names, index.rows.labels
    strata = find_bins(index.rows.labels, index.edges)
    bounds = [index.rows.labels.min(), *index.edges, index.rows.labels.max()]
    return [f"{low:g} to {high:g}" for low, high in pairwise(bounds)], strata


def _blank(images: int, size: int) -> Image.Image:
    return Image.new("RGB", (max(1, images * (size + _GAP) - _GAP), size), "white")


def _to_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
