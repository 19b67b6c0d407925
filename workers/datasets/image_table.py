"""A zip with a table at its top that names images and their labels. Nothing is decoded here."""

from __future__ import annotations

from operator import itemgetter
from unicodedata import normalize
from zipfile import ZipFile

import numpy as np

from search_spaces.datasets import Task
from service.dataset_layout import is_table
from service.label_table import LabelRow, LabelTable, LabelTableError, parse_label_table
from workers.datasets.archive import read_member
from workers.datasets.contents import Contents, number_classes
from workers.datasets.image_files import ArchiveFile, ImageFiles, below, list_files, top_folder
from workers.datasets.note import NoteKind, notes_about
from workers.datasets.refusal import DatasetFault, DatasetRefusedError, UnreadableError, refuse

MAX_TABLE_BYTES = 32 << 20


def find_table(archive: ZipFile) -> ArchiveFile | None:
    """The only table at the archive's top, or at that of the one folder that everything is in."""
    tables = [file for file in _seen_files(archive) if len(file.parts) == 1 and is_table(file.parts)]
    return tables[0] if len(tables) == 1 else None


def _seen_files(archive: ZipFile) -> list[ArchiveFile]:
    files = list_files(archive)
    has_files_beside = any(len(file.parts) == 1 for file in files)
    return files if has_files_beside else below(top_folder(files), files)


def read_table(archive: ZipFile) -> Contents:
    """Images by their rows: of classes in alphabetical order, or with values to be told.

    Raises:
        DatasetRefusedError: the table has faults, or more than half of the images that it names are not there.
    """
    table_file = find_table(archive)
    assert table_file is not None, "the format is known by its table"
    name = table_file.parts[0]
    table = _parse(archive, table_file, name)
    places = {"/".join(file.parts): file.place for file in _seen_files(archive) if file != table_file}
    found = sorted(((places[_path(row)], row) for row in table.rows if _path(row) in places), key=itemgetter(0))
    missing = [_no_file(row, name) for row in table.rows if _path(row) not in places]
    if len(missing) > len(found):
        raise DatasetRefusedError(missing)
    task, class_names, labels = _labels([row for _, row in found], table, name)
    named = {place for place, _ in found}
    unlabelled = (path for path, place in places.items() if place not in named)
    return Contents(
        ImageFiles(archive),
        task,
        class_names,
        labels,
        np.zeros(len(found), dtype=bool),
        np.array([place for place, _ in found], dtype=np.int64),
        (
            *notes_about(NoteKind.MISSING, "rows whose image is not in the archive are left out", map(str, missing)),
            *notes_about(NoteKind.UNLABELLED, f"files that {name} does not name are left out", unlabelled),
        ),
    )


def _parse(archive: ZipFile, file: ArchiveFile, name: str) -> LabelTable:
    try:
        return parse_label_table(read_member(archive, archive.infolist()[file.place], MAX_TABLE_BYTES))
    except UnreadableError as error:
        raise refuse(name, str(error)) from error
    except LabelTableError as error:
        faults = [DatasetFault(f"{name}, line {fault.line}", fault.message) for fault in error.faults]
        raise DatasetRefusedError(faults) from error


def _path(row: LabelRow) -> str:
    return normalize("NFC", row.path)


def _no_file(row: LabelRow, name: str) -> DatasetFault:
    return DatasetFault(f"{name}, line {row.line}", f"there is no {row.path}; add it, or take the line out")


def _labels(rows: list[LabelRow], table: LabelTable, name: str) -> tuple[Task, tuple[str, ...], np.ndarray]:
    if table.holds_values:
        return Task.REGRESSION, (), np.array([float(row.label) for row in rows], dtype=np.float32)
    labels = [normalize("NFC", row.label) for row in rows]
    numbers = number_classes(labels, name, by_value=True)
    return Task.CLASSIFICATION, tuple(numbers), np.array([numbers[label] for label in labels], dtype=np.int64)
