"""What a user should know of a data set before anything is trained on it. Nothing here stops anything."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import islice
from typing import Any

MOST_PARTS = 20


class NoteKind(StrEnum):
    """What a note is about."""

    UNREADABLE = "unreadable"  # files that are no images, or damaged ones
    UNLABELLED = "unlabelled"  # images that no class folder or row is for
    MISSING = "missing"  # rows whose image is not there
    EMPTY_CLASSES = "empty_classes"  # folders without a usable image
    FOLDERS_AS_CLASSES = "folders_as_classes"  # folders called train or test that are taken as classes
    DUPLICATES = "duplicates"  # the same pixels again, with the same label
    CONFLICTING_LABELS = "conflicting_labels"  # the same pixels with different labels
    ALREADY_THERE = "already_there"  # added images that the data set had
    NEW_CLASSES = "new_classes"  # that came with added images
    CLASS_IMBALANCE = "class_imbalance"
    SMALL_CLASSES = "small_classes"  # too few images to be in every split
    FEW_IMAGES = "few_images"  # accuracy will not be told closely
    MIXED_SIZES = "mixed_sizes"
    MIXED_MODES = "mixed_modes"  # grey and colour
    CONVERTED = "converted"  # pixels that were not 8-bit grey or colour


@dataclass(frozen=True, slots=True)
class Note:
    """One thing to know.

    Attributes:
        message: for people: what it is and what it means.
        parts: the first of those that it is about.
        count: how many of those there are in all.
    """

    kind: NoteKind
    message: str
    parts: tuple[str, ...] = ()
    count: int = 0


def notes_about(kind: NoteKind, message: str, parts: Iterable[str]) -> tuple[Note, ...]:
    """One note that counts all parts and keeps the first of them; none when there are no parts."""
    rest = iter(parts)
    kept = tuple(islice(rest, MOST_PARTS))
    return (Note(kind, message, kept, len(kept) + sum(1 for _ in rest)),) if kept else ()


def note_to_json(note: Note) -> dict[str, Any]:
    """Plain JSON types."""
    return {**asdict(note), "kind": str(note.kind), "parts": list(note.parts)}
