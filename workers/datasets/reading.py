"""Reads every image of an archive once, one at a time, into rows of an index. Knows nothing of other archives."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from workers.datasets.archive import THE_ARCHIVE
from workers.datasets.contents import Contents, Pictures
from workers.datasets.index import Rows, empty_rows
from workers.datasets.note import Note, NoteKind, notes_about
from workers.datasets.picture import COLOUR, Picture, channel_moments, picture_digest
from workers.datasets.refusal import MOST_FAULTS, DatasetFault, DatasetRefusedError, UnreadableError, refuse
from workers.datasets.watch import Watch
from workers.progress import Progress


@dataclass(frozen=True)
class Reading:
    """What was found in an archive.

    Attributes:
        pictures: to tell what an image is called.
        rows: of the images that can be read; labels are numbered as in the archive's own contents.
        is_test: bool, one for each row.
        modes: how many images had which mode.
    """

    pictures: Pictures
    rows: Rows
    is_test: np.ndarray
    modes: Counter[str]
    notes: tuple[Note, ...]


def read_images(contents: Contents, archive: int, progress: Progress) -> Reading:
    """Decode and digest all images.

    Args:
        contents: of the archive.
        archive: its number in the data set.
        progress: told the share that is read.

    Raises:
        DatasetRefusedError: there are no images, or more than half of them cannot be read.
    """
    count = len(contents.places)
    if not count:
        raise refuse(THE_ARCHIVE, "has no images; put some in")
    rows = empty_rows(count, contents.task)
    rows.labels[:], rows.archives[:], rows.places[:] = contents.labels, archive, contents.places
    is_readable = np.ones(count, dtype=bool)
    modes: Counter[str] = Counter()
    faults: list[DatasetFault] = []
    watch = Watch(progress, "index", count)
    # `map` lets go of each picture before the next is decoded: two of the largest would be twice the memory.
    outcomes = map(partial(_record, rows), range(count), contents.pictures.read(contents.places))
    for row, outcome in enumerate(outcomes):
        if isinstance(outcome, UnreadableError):
            is_readable[row] = False
            if len(faults) < MOST_FAULTS:
                faults.append(DatasetFault(contents.pictures.part(int(contents.places[row])), str(outcome)))
        else:
            modes[outcome] += 1
        watch.step(row + 1)
    unreadable = count - int(is_readable.sum())
    if 2 * unreadable > count:
        raise DatasetRefusedError(faults, unreadable)
    notes = (*contents.notes, *_notes(faults, unreadable))
    return Reading(contents.pictures, rows.take(is_readable), contents.is_test[is_readable], modes, notes)


def _record(rows: Rows, row: int, picture: Picture | UnreadableError) -> str | UnreadableError:
    """Fill one row; gives the mode that the picture was stored in."""
    if isinstance(picture, UnreadableError):
        return picture
    image = picture.image
    rows.digests[row] = picture_digest(image)
    rows.widths[row], rows.heights[row] = image.size
    rows.is_colour[row] = image.mode == COLOUR
    rows.moments[row] = channel_moments(image)  # of grey, the one channel's three times
    return picture.mode


def _notes(faults: list[DatasetFault], unreadable: int) -> tuple[Note, ...]:
    notes = notes_about(NoteKind.UNREADABLE, "files that cannot be read are left out", map(str, faults))
    return tuple(replace(note, count=unreadable) for note in notes)
