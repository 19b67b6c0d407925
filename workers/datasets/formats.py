"""The formats that a data set may be handed over in, told by what is in the archive, never by a name from outside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from zipfile import ZipFile

from workers.datasets.archive import open_archive
from workers.datasets.contents import Contents, Pictures
from workers.datasets.idx_files import idx_pictures, is_idx, read_idx
from workers.datasets.image_files import ImageFiles
from workers.datasets.image_folder import read_folder
from workers.datasets.image_table import find_table, read_table
from workers.datasets.npz import is_npz, npz_pictures, read_npz


class Format(StrEnum):
    """How images and labels are put into an archive."""

    NPZ = "npz"
    IDX = "idx"
    CSV = "csv"
    IMAGE_FOLDER = "image_folder"


_CONTENTS = {
    Format.NPZ: read_npz,
    Format.IDX: read_idx,
    Format.CSV: read_table,
    Format.IMAGE_FOLDER: read_folder,
}


def tell_format(archive: ZipFile) -> Format:
    """The first that fits; folders of images, when nothing else does."""
    if is_npz(archive):
        return Format.NPZ
    if is_idx(archive):
        return Format.IDX
    return Format.IMAGE_FOLDER if find_table(archive) is None else Format.CSV


@contextmanager
def open_contents(path: Path) -> Iterator[Contents]:
    """What a user's archive holds, with its labels.

    Raises:
        DatasetRefusedError: it is in no format that is known, or has faults.
    """
    with open_archive(path) as archive:
        yield _CONTENTS[tell_format(archive)](archive)


@contextmanager
def open_pictures(path: Path) -> Iterator[Pictures]:
    """The images of an archive that has been indexed.

    Raises:
        DatasetRefusedError: it is no such archive any more.
    """
    with open_archive(path) as archive:
        yield _pictures(archive)


def _pictures(archive: ZipFile) -> Pictures:
    match tell_format(archive):
        case Format.NPZ:
            return npz_pictures(archive)
        case Format.IDX:
            return idx_pictures(archive)
        case _:
            return ImageFiles(archive)
