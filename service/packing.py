"""Makes the one archive that a data set is handed over as, from whatever an engineer has. Knows no Pillow, no HTTP."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from service.dataset_layout import (
    HEAD_BYTES,
    Parts,
    idx_file,
    is_compressed_image,
    is_image,
    is_passed_over,
    is_table,
    is_zip,
)
from service.label_table import LabelTableError, parse_label_table

PackingProgress = Callable[[int, int], None]
"""Called with the number of files that are packed and the number of all."""

WHAT_IS_TAKEN = (
    "hand over a folder with one folder of images for each class, a .csv that names images and their labels, "
    "a folder of IDX files, a .zip of any of these, or an .npz"
)

_ALWAYS_THE_SAME = (1980, 1, 1, 0, 0, 0)  # so that the same files make the same archive, however often they are packed
_FILE_MODE = 0o100644 << 16
_IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
_COMPRESSED_ENDINGS = (".gz", ".zip", ".npz")
_MOST_NAMED = 3


class PackingError(ValueError):
    """There is nothing here that can be handed over; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class _File:
    """A file to be packed.

    Attributes:
        parts: its place in the archive.
        is_image: told by its first bytes.
        is_compressed: whether it would not get smaller.
    """

    path: Path
    parts: Parts
    is_image: bool
    is_compressed: bool


@contextmanager
def pack(path: Path, progress: PackingProgress = lambda done, total: None) -> Iterator[Path]:
    """The archive to hand over for what is at `path`: itself if it is one, else a temporary zip file.

    Hidden files and links are left out, and so is whatever is neither an image, a table nor IDX. What is called like an
    image is packed also when it is damaged: the index of the data set is where that is told.

    Raises:
        PackingError: there is nothing there, no images, or something that cannot be read.
    """
    if not path.exists():
        raise PackingError(f"there is nothing at {path}; {WHAT_IS_TAKEN}")
    if path.is_file() and not is_table((path.name,)):
        _check_is_archive(path)
        yield path
        return
    files = _list_table(path) if path.is_file() else _list_folder(path)
    with tempfile.TemporaryDirectory(prefix="espalier-pack-") as scratch:
        packed = Path(scratch) / "data.zip"
        _write(packed, files, progress)
        yield packed


def _check_is_archive(path: Path) -> None:
    if not is_zip(_read_head(path)):
        raise PackingError(f"{path} is no zip file and no .npz; {WHAT_IS_TAKEN}")


def _list_folder(folder: Path) -> list[_File]:
    """A folder of class folders, of IDX files, or one with a table at its top."""
    found = list(_walk(folder, ()))
    tables = [path for path, parts in found if len(parts) == 1 and is_table(parts)]
    if len(tables) == 1:
        return _list_table(tables[0])
    kinds = {idx_file(parts[-1]) for _, parts in found} - {None}
    if len(kinds) > 1:
        return _look_at([one for one in found if idx_file(one[1][-1])])
    files = [file for file in _look_at(found) if file.is_image or file.path.suffix.lower() in _IMAGE_ENDINGS]
    if not any(file.is_image for file in files):
        raise PackingError(f"there are no images in {folder}; {WHAT_IS_TAKEN}")
    return files


def _walk(folder: Path, above: Parts) -> Iterator[tuple[Path, Parts]]:
    """Files below a folder, in the order of their names. Links are not followed: they may lead anywhere."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise PackingError(f"{folder} cannot be read: {error.strerror}; change its permissions") from error
    for entry in entries:
        parts = (*above, entry.name)
        if is_passed_over(parts):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), parts)
        elif entry.is_file(follow_symlinks=False):
            yield Path(entry.path), parts


def _list_table(table: Path) -> list[_File]:
    """The table, and the images that it names. Those that are missing are told by the index of the data set."""
    try:
        rows = parse_label_table(_read(table)).rows
    except LabelTableError as error:
        named = [f"{table.name}, line {fault.line}: {fault.message}" for fault in error.faults]
        raise PackingError(_list_some(named)) from error
    root = table.parent.resolve()
    named_paths = [(root / row.path, (*row.path.split("/"),)) for row in rows]
    files = _look_at([(path, parts) for path, parts in named_paths if _is_inside(path, root)])
    if not any(file.is_image for file in files):
        raise PackingError(f"none of the {len(rows)} files that {table} names is an image beside it; {WHAT_IS_TAKEN}")
    return [_File(table, (table.name,), is_image=False, is_compressed=False), *files]


def _is_inside(path: Path, root: Path) -> bool:
    """Whether it is a file that is really there: a table from elsewhere must not name private files by way of links."""
    return path.is_file() and path.resolve() == path and path.is_relative_to(root)


def _look_at(found: Sequence[tuple[Path, Parts]]) -> list[_File]:
    """Read what each file begins with.

    Raises:
        PackingError: some cannot be read.
    """
    files, unreadable = [], []
    for path, parts in found:
        try:
            head = _read_head(path)
        except PackingError as error:
            unreadable.append(str(error))
            continue
        is_compressed = is_compressed_image(head) or path.name.lower().endswith(_COMPRESSED_ENDINGS)
        files.append(_File(path, parts, is_image(head), is_compressed))
    if unreadable:
        raise PackingError(_list_some(unreadable))
    return files


def _list_some(lines: list[str]) -> str:
    more = len(lines) - _MOST_NAMED
    return "\n".join(lines[:_MOST_NAMED]) + (f"\nand {more:,} more" if more > 0 else "")


def _read(path: Path, count: int = -1) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise PackingError(
            f"{path} cannot be read: {error.strerror}; change its permissions or move it away"
        ) from error


def _read_head(path: Path) -> bytes:
    return _read(path, HEAD_BYTES)


def _write(packed: Path, files: list[_File], progress: PackingProgress) -> None:
    with zipfile.ZipFile(packed, "w") as archive:
        for number, file in enumerate(files):
            progress(number, len(files))
            member = zipfile.ZipInfo("/".join(file.parts), _ALWAYS_THE_SAME)
            member.compress_type = zipfile.ZIP_STORED if file.is_compressed else zipfile.ZIP_DEFLATED
            member.external_attr = _FILE_MODE
            try:
                member.file_size = file.path.stat().st_size
                with file.path.open("rb") as source, archive.open(member, "w") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
            except OSError as error:
                raise PackingError(
                    f"{file.path} cannot be packed: {error.strerror}; mend that and try again"
                ) from error
            except UnicodeEncodeError as error:
                raise PackingError(f"{str(file.path)!a} has a name that is not UTF-8; rename it") from error
    progress(len(files), len(files))
