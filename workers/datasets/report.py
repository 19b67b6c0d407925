"""What a user is told of a data set before anything is trained on it: sizes, splits, and what to know of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from search_spaces.datasets import Task
from search_spaces.scores import wilson_interval
from workers.datasets.index import Rows, SplitNumber
from workers.datasets.note import Note, NoteKind, note_to_json, notes_about
from workers.datasets.picture import COLOUR, GREY
from workers.strata import IN_EVERY_SPLIT

MOST_SIZES = 10
UNEVEN = 10
"""Largest class by smallest; from here on it is worth telling."""
LOOSE = 0.05
"""Half the width of an accuracy's interval; from here on it is worth telling."""
_LIKELY_ACCURACY = 0.9

_CONVERSIONS = {
    "1": "black and white, taken as grey",
    "P": "a palette, taken as colour",
    "CMYK": "inks, converted to red, green and blue",
    "LA": "grey with transparency, laid on white",
    "RGBA": "colour with transparency, laid on white",
    "I;16": "16 bits, of which the upper 8 are used",
}


def make_report(
    task: Task,
    class_names: Sequence[str],
    rows: Rows,
    splits: np.ndarray,
    modes: Counter[str],
    notes: Iterable[Note],
) -> dict[str, Any]:
    """All that is worth knowing, as plain JSON types.

    Args:
        task, class_names, rows, splits: as in the index.
        modes: how many images were stored in which mode.
        notes: on single files; of a data set that is added to, on those that are new.

    Returns:
        images, splits (images in each), classes (images of each in each split) or values (least, greatest, mean),
        sizes (the commonest, with how many images have them), modes, half_widths (of the 95% interval of an accuracy of
        0.9, for score, confirm and test), notes.
    """
    counts = {split.name.lower(): int((splits == split).sum()) for split in SplitNumber}
    sizes = _commonest_sizes(rows)
    own = (*_class_notes(task, class_names, rows, splits), *_size_notes(rows, sizes), *_mode_notes(rows, modes))
    return {
        "images": len(rows),
        "splits": counts,
        **_labels(task, class_names, rows, splits),
        "sizes": [{"width": width, "height": height, "images": images} for width, height, images in sizes],
        "modes": dict(modes.most_common()),
        "half_widths": _half_widths(counts) if task is Task.CLASSIFICATION else {},
        "notes": [note_to_json(note) for note in (*notes, *own, *_interval_notes(task, counts))],
    }


def half_width(images: int) -> float:
    """Half of the 95% interval of an accuracy of 0.9 that so many images tell."""
    low, high = wilson_interval(_LIKELY_ACCURACY, images)
    return (high - low) / 2


def _half_widths(counts: dict[str, int]) -> dict[str, float]:
    return {name: round(half_width(counts[name]), 4) for name in ("score", "confirm", "test") if counts[name]}


def _labels(task: Task, class_names: Sequence[str], rows: Rows, splits: np.ndarray) -> dict[str, Any]:
    if task is Task.REGRESSION:
        values = rows.labels.astype(np.float64)
        return {"values": {"least": values.min(), "greatest": values.max(), "mean": values.mean()}}
    by_split = {
        split.name.lower(): np.bincount(rows.labels[splits == split], minlength=len(class_names)).tolist()
        for split in SplitNumber
    }
    return {
        "classes": [
            {"name": name, **{split: counts[number] for split, counts in by_split.items()}}
            for number, name in enumerate(class_names)
        ]
    }


def _commonest_sizes(rows: Rows) -> list[tuple[int, int, int]]:
    """(width, height, images), the commonest first; of equally common ones the smaller."""
    sizes, counts = np.unique(np.stack([rows.widths, rows.heights], axis=1), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [(int(sizes[one, 0]), int(sizes[one, 1]), int(counts[one])) for one in order]


def _class_notes(task: Task, class_names: Sequence[str], rows: Rows, splits: np.ndarray) -> Iterator[Note]:
    if task is Task.REGRESSION:
        return
    counts = np.bincount(rows.labels[splits != SplitNumber.TEST], minlength=len(class_names)).tolist()
    most, least = max(counts), min(counts)
    smallest_first = sorted(zip(counts, class_names, strict=True))
    if most > UNEVEN * least:
        message = (
            f"the largest class has {most:,} images and the smallest {least:,}: accuracy tells mostly of the large "
            "ones; add images to the small ones"
        )
        small = (f"{name}: {count:,}" for count, name in smallest_first if most > UNEVEN * count)
        yield from notes_about(NoteKind.CLASS_IMBALANCE, message, small)
    message = f"classes with fewer than {IN_EVERY_SPLIT} images may be missing where accuracy is told; add images"
    few = (f"{name}: {count:,}" for count, name in smallest_first if count < IN_EVERY_SPLIT)
    yield from notes_about(NoteKind.SMALL_CLASSES, message, few)


def _size_notes(rows: Rows, sizes: list[tuple[int, int, int]]) -> Iterator[Note]:
    if len(sizes) > 1:
        message = (
            f"images have {len(sizes):,} different sizes, the commonest is {sizes[0][0]} x {sizes[0][1]}: each is "
            "resized and its middle cut out, as the network's input asks for"
        )
        parts = (f"{width} x {height}: {images:,}" for width, height, images in sizes)
        yield from notes_about(NoteKind.MIXED_SIZES, message, parts)


def _mode_notes(rows: Rows, modes: Counter[str]) -> Iterator[Note]:
    grey = len(rows) - int(rows.is_colour.sum())
    if 0 < grey < len(rows):
        message = f"{grey:,} images are grey and {len(rows) - grey:,} in colour: all are taken as colour"
        yield Note(NoteKind.MIXED_MODES, message)
    converted = {mode: count for mode, count in modes.most_common() if mode not in (GREY, COLOUR)}
    message = "images that are not stored as 8 bits of grey or colour are converted"
    parts = (f"{_CONVERSIONS.get(mode, mode)}: {count:,}" for mode, count in converted.items())
    yield from notes_about(NoteKind.CONVERTED, message, parts)


def _interval_notes(task: Task, counts: dict[str, int]) -> Iterator[Note]:
    fewest = min(counts["score"], counts["confirm"])
    if half_width(fewest) <= LOOSE:
        return
    told = "how wrong a network is will be told roughly"
    if task is Task.CLASSIFICATION:
        told = f"an accuracy of 90% is known to within {100 * half_width(fewest):.0f} points either way"
    message = f"score has {counts['score']:,} images and confirm {counts['confirm']:,}: {told}; add images to know more"
    yield Note(NoteKind.FEW_IMAGES, message)
