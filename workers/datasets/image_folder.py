"""A zip with one folder of images for each class. Knows names only: nothing is decoded here."""

from __future__ import annotations

from zipfile import ZipFile

import numpy as np

from search_spaces.datasets import Task
from service.dataset_layout import Parts
from workers.datasets.archive import THE_ARCHIVE
from workers.datasets.contents import Contents, number_classes
from workers.datasets.image_files import ArchiveFile, ImageFiles, below, list_files, list_folders, top_folder
from workers.datasets.note import Note, NoteKind, notes_about
from workers.datasets.refusal import refuse

_TEST = "test"
_SPLITS = frozenset({"train", "val", "valid", "validation", _TEST})


def read_folder(archive: ZipFile) -> Contents:
    """Classes are the names of folders: below `train`, `val` and `test` when there are no others beside these.

    One folder around everything is ignored. Folders within a class folder belong to the class. What is in `test`
    is the official test set; the division into `train` and `val` is not kept, since Espalier makes its own.

    Raises:
        DatasetRefusedError: there are no class folders.
    """
    files = list_files(archive)
    top = _top(files)
    files = below(top, files)
    level = 1 if _has_parts(files) else 0
    classed = [file for file in files if len(file.parts) > level + 1 and ".." not in file.parts]
    if not classed:
        where = "the folders of its parts hold no folders" if level else "it holds no folders of images"
        raise refuse(THE_ARCHIVE, f"{where}; put the images of each class in a folder that is called like the class")
    numbers = number_classes((file.parts[level] for file in classed), THE_ARCHIVE)
    return Contents(
        ImageFiles(archive),
        Task.CLASSIFICATION,
        tuple(numbers),
        np.array([numbers[file.parts[level]] for file in classed], dtype=np.int64),
        np.array([level == 1 and file.parts[0].lower() == _TEST for file in classed]),
        np.array([file.place for file in classed], dtype=np.int64),
        _notes(archive, top, level, files, classed, numbers),
    )


def _top(files: list[ArchiveFile]) -> Parts:
    """The folder to ignore: one that holds folders, and is neither a class nor a part of the data set."""
    top = top_folder(files)
    holds_folders = any(len(file.parts) > 2 for file in files)
    return top if top and holds_folders and top[0].lower() not in _SPLITS else ()


def _has_parts(files: list[ArchiveFile]) -> bool:
    """Whether the folders are `train`, `test` and the like, and classes are one level below.

    Raises:
        DatasetRefusedError: some are and others are not, so that nobody knows.
    """
    folders = {file.parts[0] for file in files if len(file.parts) > 1}
    parts = {name for name in folders if name.lower() in _SPLITS}
    if parts == folders:
        return bool(folders)
    divided = sorted({file.parts[0] for file in files if len(file.parts) > 2} & parts)
    if divided:
        other = min(folders - parts)
        message = f"stands beside the folder {other!r}; take that out, or rename this one if it is a class"
        raise refuse(f"{divided[0]}/", message)
    return False


def _notes(
    archive: ZipFile,
    top: Parts,
    level: int,
    files: list[ArchiveFile],
    classed: list[ArchiveFile],
    numbers: dict[str, int],
) -> tuple[Note, ...]:
    known = {file.place for file in classed}
    unlabelled = ("/".join(file.parts) for file in files if file.place not in known)
    folders = {parts[len(top) :] for parts in list_folders(archive) if parts[: len(top)] == top}
    empty = sorted({parts[level] for parts in folders if len(parts) == level + 1} - numbers.keys())
    confusing = sorted(name for name in numbers if level == 0 and name.lower() in _SPLITS)
    return (
        *notes_about(NoteKind.UNLABELLED, "files in no class folder are left out", unlabelled),
        *notes_about(NoteKind.EMPTY_CLASSES, "folders without images are no classes", empty),
        *notes_about(
            NoteKind.FOLDERS_AS_CLASSES,
            "folders with such names are taken as classes, because they hold images and others stand beside them",
            confusing,
        ),
    )
