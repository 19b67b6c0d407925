"""Makes the index of a user's data set from its archives, or refuses them with all that is wrong.

Steps: read what is new, keep each image once, number the classes, give out splits, tell what to know. An index that was
made earlier is only ever added to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np

from search_spaces.datasets import Task
from workers.datasets.archive import THE_ARCHIVE
from workers.datasets.assignment import NOT_ASSIGNED, assign_splits
from workers.datasets.contents import MAX_CLASSES, MAX_IMAGES, Contents
from workers.datasets.duplicates import Fates, tell_fates
from workers.datasets.formats import open_contents
from workers.datasets.index import Index, Rows, SplitNumber, content_digest, join_rows
from workers.datasets.note import Note, NoteKind, notes_about
from workers.datasets.reading import Reading, read_images
from workers.datasets.refusal import DatasetFault, refuse, refuse_any
from workers.datasets.report import make_report
from workers.progress import Progress, ignore_progress
from workers.strata import IN_EVERY_SPLIT, find_bins, find_edges

FEWEST_IMAGES = 30
"""With fewer to train and to score on, nothing that a search finds means anything."""


def index_dataset(
    archives: Sequence[Path], name: str, earlier: Index | None = None, progress: Progress = ignore_progress
) -> Index:
    """Check, count and split a data set.

    With `earlier`, only the archives behind those that it was made of are read. Images and classes that it has keep
    their splits and numbers; new classes get the numbers that follow, also where they come first in the alphabet.

    Args:
        archives: all of the data set, in the order in which they were handed over.
        name: of the data set.
        earlier: index of the first of these archives.
        progress: told the share of each new archive that is read.

    Raises:
        DatasetRefusedError: with all that is wrong and what would be right.
        ValueError: no archive is new.
    """
    first = earlier.archives if earlier else 0
    if len(archives) <= first:
        raise ValueError(f"{len(archives)} archives, of which {first} are in the index already")
    added = _read_new(archives, earlier, progress)
    rows, splits = _join(added, earlier)
    class_names, rows, number_notes = _number_classes(added.class_names, rows, earlier)
    _refuse_unusable(added.task, class_names, rows, splits)
    edges = earlier.edges if earlier else _edges(added.task, rows, splits)
    strata = rows.labels if added.task is Task.CLASSIFICATION else find_bins(rows.labels, edges)
    splits = assign_splits(strata, splits)
    _refuse_empty_splits(splits)
    return Index(
        name=name,
        task=added.task,
        class_names=class_names,
        edges=edges,
        archives=len(archives),
        rows=rows,
        splits=splits,
        dropped=added.dropped + (earlier.dropped if earlier else 0),
        report=make_report(added.task, class_names, rows, splits, added.modes, (*added.notes, *number_notes)),
        digest=content_digest(added.task, class_names, rows, splits),
    )


@dataclass(frozen=True)
class _Added:
    """What new archives bring.

    Attributes:
        class_names: of the data set before, then new ones.
        rows: of images that the data set did not have, each once.
        is_test: bool, one for each row.
        modes: of all images, also of those that the data set had.
        dropped: images of the pool that the test set has too.
    """

    task: Task
    class_names: tuple[str, ...]
    rows: Rows
    is_test: np.ndarray
    modes: Counter[str]
    dropped: int
    notes: tuple[Note, ...]


def _read_new(archives: Sequence[Path], earlier: Index | None, progress: Progress) -> _Added:
    first = earlier.archives if earlier else 0
    with ExitStack() as stack:
        contents = [stack.enter_context(open_contents(path)) for path in archives[first:]]
        task = _one_task(contents, earlier)
        names = _join_names(contents, earlier)
        readings = [read_images(one, first + number, progress) for number, one in enumerate(contents)]
        rows = join_rows([_renumber(reading.rows, one, names) for reading, one in zip(readings, contents, strict=True)])
        is_test = np.concatenate([reading.is_test for reading in readings])
        fate = tell_fates(rows, is_test, earlier)
        notes = (*chain.from_iterable(reading.notes for reading in readings), *_fate_notes(rows, fate, readings, first))
    modes = sum((reading.modes for reading in readings), Counter(earlier.report["modes"] if earlier else {}))
    return _Added(task, names, rows.take(fate.is_kept), is_test[fate.is_kept], modes, fate.dropped, notes)


def _one_task(contents: Sequence[Contents], earlier: Index | None) -> Task:
    tasks = {one.task for one in contents} | ({earlier.task} if earlier else set())
    if len(tasks) > 1:
        raise refuse(THE_ARCHIVE, "has values where the data set has classes, or the reverse; keep them apart")
    return contents[0].task


def _join_names(contents: Sequence[Contents], earlier: Index | None) -> tuple[str, ...]:
    """All names of classes; those of the data set first, as they are numbered there."""
    names = dict.fromkeys(earlier.class_names if earlier else ())
    return tuple(names | dict.fromkeys(chain.from_iterable(one.class_names for one in contents)))


def _renumber(rows: Rows, contents: Contents, names: tuple[str, ...]) -> Rows:
    if contents.task is Task.REGRESSION:
        return rows
    numbers = {name: number for number, name in enumerate(names)}
    numbering = np.array([numbers[name] for name in contents.class_names], dtype=np.int64)
    return replace(rows, labels=numbering[rows.labels])


def _fate_notes(rows: Rows, fate: Fates, readings: Sequence[Reading], first: int) -> Iterator[Note]:
    """What to know of images that are left out because others are the same."""

    def named(mask: np.ndarray) -> Iterator[str]:
        for row in np.flatnonzero(mask).tolist():
            yield readings[rows.archives[row] - first].pictures.part(int(rows.places[row]))

    yield from notes_about(
        NoteKind.DUPLICATES, "images with the same pixels and label as another are used once", named(fate.is_copy)
    )
    yield from notes_about(
        NoteKind.CONFLICTING_LABELS,
        "images with the same pixels and different labels are left out; give them one label",
        named(fate.is_disputed),
    )
    yield from notes_about(
        NoteKind.CONFLICTING_LABELS,
        "images that the data set has with another label are left out; it keeps the label that it has",
        named(fate.is_known_otherwise),
    )
    yield from notes_about(NoteKind.ALREADY_THERE, "images that the data set has are left out", named(fate.is_known))


def _join(added: _Added, earlier: Index | None) -> tuple[Rows, np.ndarray]:
    """All rows, ascending by digest, with the splits that are known."""
    rows = added.rows
    splits = np.where(added.is_test, SplitNumber.TEST, NOT_ASSIGNED).astype(np.uint8)
    if earlier:
        rows, splits = join_rows([earlier.rows, rows]), np.concatenate([earlier.splits, splits])
    order = np.argsort(rows.digests, kind="stable")
    return rows.take(order), splits[order]


def _number_classes(
    names: tuple[str, ...], rows: Rows, earlier: Index | None
) -> tuple[tuple[str, ...], Rows, tuple[Note, ...]]:
    """Leave out classes of which no image is used."""
    if not names:
        return names, rows, ()
    is_used = np.bincount(rows.labels, minlength=len(names)) > 0
    used = tuple(name for name, is_one in zip(names, is_used, strict=True) if is_one)
    unused = (name for name, is_one in zip(names, is_used, strict=True) if not is_one)
    notes = notes_about(NoteKind.EMPTY_CLASSES, "classes without a usable image are left out", unused)
    if earlier:
        new = used[len(earlier.class_names) :]
        notes += notes_about(NoteKind.NEW_CLASSES, "classes are new; they are numbered behind the others", new)
    return used, replace(rows, labels=(np.cumsum(is_used) - 1)[rows.labels]), notes


def _refuse_unusable(task: Task, class_names: Sequence[str], rows: Rows, splits: np.ndarray) -> None:
    pool = rows.labels[splits != SplitNumber.TEST]
    if len(rows) > MAX_IMAGES:
        raise refuse(THE_ARCHIVE, f"makes {len(rows):,} images; leave out some, {MAX_IMAGES:,} are allowed")
    if len(pool) < FEWEST_IMAGES:
        raise refuse(THE_ARCHIVE, f"has {len(pool):,} different images to train with; add some, to {FEWEST_IMAGES}")
    if task is Task.REGRESSION:
        if pool.min() == pool.max():
            raise refuse(THE_ARCHIVE, f"has the value {pool[0]:g} for all images; give them values that differ")
        return
    if len(class_names) < 2:
        raise refuse(THE_ARCHIVE, f"has the one class {class_names[0]!r}; add images of what it is to be told from")
    if len(class_names) > MAX_CLASSES:
        raise refuse(THE_ARCHIVE, f"makes {len(class_names):,} classes; join some, {MAX_CLASSES:,} are allowed")
    counts = np.bincount(pool, minlength=len(class_names))
    refuse_any(
        DatasetFault(f"class {class_names[one]}", "has images for testing only; add some to train with, or take it out")
        for one in np.flatnonzero(counts == 0).tolist()
    )


def _edges(task: Task, rows: Rows, splits: np.ndarray) -> np.ndarray:
    return np.empty(0) if task is Task.CLASSIFICATION else find_edges(rows.labels[splits != SplitNumber.TEST])


def _refuse_empty_splits(splits: np.ndarray) -> None:
    refuse_any(
        DatasetFault(THE_ARCHIVE, f"has no class with enough images for the split {split.name.lower()}; {_ADD}")
        for split in SplitNumber
        if split is not SplitNumber.TEST and not (splits == split).any()
    )


_ADD = f"add images until a class has {IN_EVERY_SPLIT} or more"
