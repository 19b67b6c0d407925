"""What an archive holds, once its format is known: the contract between formats and all that reads images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from search_spaces.datasets import MOST_LETTERS, Task, is_class_name
from workers.datasets.note import Note
from workers.datasets.picture import Picture
from workers.datasets.refusal import DatasetFault, UnreadableError, refuse, refuse_any

MAX_IMAGES = 1_000_000
"""Of a whole data set: what is kept of each takes some 60 bytes."""
MAX_CLASSES = 10_000


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


def number_classes(labels: Iterable[str], part: str, *, by_value: bool = False) -> dict[str, int]:
    """Names of classes in alphabetical order, numbered from 0; with `by_value` integers are in their own order.

    Folders are sorted as torchvision and Keras sort them, 10 before 2: what was trained there has its outputs so.
    `part` is what the names stand in.

    Raises:
        DatasetRefusedError: there are too many, or one cannot be shown.
    """
    names = sorted(set(labels))
    if by_value and all(_is_integer(name) for name in names):
        names.sort(key=int)
    check_class_names(names, part)
    return {name: number for number, name in enumerate(names)}


def _is_integer(name: str) -> bool:
    return name.removeprefix("-").isdecimal() and name.isascii() and str(int(name[:20])) == name


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
            part, f"the class {name[:MOST_LETTERS]!r} has no printable name of 1 to {MOST_LETTERS} letters; rename it"
        )
        for name in names
        if not is_class_name(name)
    )
