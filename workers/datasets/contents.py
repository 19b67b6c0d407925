"""What an archive holds, once its format is known: the contract between formats and all that reads images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from search_spaces.datasets import Task
from workers.datasets.note import Note
from workers.datasets.picture import Picture
from workers.datasets.refusal import DatasetFault, UnreadableError, refuse, refuse_any

MAX_IMAGES = 1_000_000
"""Of a whole data set: what is kept of each takes some 60 bytes."""
MAX_CLASSES = 10_000
_LONGEST_NAME = 100


class Pictures(ABC):
    """The images of one archive. Each has a place: a number that stays the same as long as the archive does.

    Images are decoded one at a time, in the order of their places, and are the caller's: nothing here keeps them.
    An image that cannot be used is given as the reason why, and the next one follows. Damage that makes all that
    follows unreadable, as in a compressed array, raises DatasetRefusedError.
    """

    @abstractmethod
    def part(self, place: int) -> str:
        """What people call the image there, such as `photos/cat/3.png`."""

    @abstractmethod
    def read(self, places: np.ndarray) -> Iterator[Picture | UnreadableError]:
        """One for each of `places`, which ascend."""


@dataclass(frozen=True)
class Contents:
    """What an archive says of its images before any is decoded. All arrays are of one length, n.

    Attributes:
        class_names: in the order in which they are numbered in a data set that is new; empty for regression.
        labels: int64 positions in `class_names`, or float32 values.
        is_test: whether an image is in the archive's own test set.
        places: where `pictures` has it, ascending.
        notes: on what was left out.
    """

    pictures: Pictures
    task: Task
    class_names: tuple[str, ...]
    labels: np.ndarray
    is_test: np.ndarray
    places: np.ndarray
    notes: tuple[Note, ...] = ()


def number_classes(labels: Iterable[str], part: str) -> dict[str, int]:
    """Names of classes in alphabetical order, numbered from 0. `part` is what the names stand in.

    Raises:
        DatasetRefusedError: there are too many, or one cannot be shown.
    """
    names = sorted(set(labels))
    check_class_names(names, part)
    return {name: number for number, name in enumerate(names)}


def check_class_names(names: Iterable[str], part: str) -> None:
    """Refuse names that no page or terminal can show.

    Raises:
        DatasetRefusedError: there are such names, or too many.
    """
    names = list(names)
    if len(names) > MAX_CLASSES:
        raise refuse(
            part, f"gives {len(names):,} classes, of at most {MAX_CLASSES:,}; are the labels what they should be?"
        )
    refuse_any(
        DatasetFault(
            part, f"the class {name[:_LONGEST_NAME]!r} has no printable name of 1 to {_LONGEST_NAME} letters; rename it"
        )
        for name in names
        if not (0 < len(name) <= _LONGEST_NAME and name.isprintable())
    )
