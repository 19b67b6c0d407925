"""The table that says which image has which label: two columns of a CSV file.

The command line packs the images that it names, the workers read the labels. It knows neither archives nor folders.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from service.dataset_layout import split_path

MOST_ROWS = 250_000
_GREATEST_VALUE = 3.4e38  # of float32, which values are kept in


@dataclass(frozen=True, slots=True)
class LabelRow:
    """One image of a table.

    Attributes:
        line: where it stands in the file, from 1.
        path: of the image, relative to the table, separated by slashes.
        label: as it is written.
    """

    line: int
    path: str
    label: str


@dataclass(frozen=True, slots=True)
class LabelTable:
    """A table without faults.

    Attributes:
        holds_values: whether labels are numbers to be told, and not names of classes.
    """

    rows: tuple[LabelRow, ...]
    holds_values: bool


@dataclass(frozen=True, slots=True)
class LineFault:
    """What is wrong with a line, and what would be right."""

    line: int
    message: str


class LabelTableError(ValueError):
    """The table cannot be used; `faults` has everything that is wrong with it."""

    def __init__(self, faults: Sequence[LineFault]) -> None:
        super().__init__("; ".join(f"line {fault.line}: {fault.message}" for fault in faults[:3]))
        self.faults = tuple(faults)


def parse_label_table(data: bytes) -> LabelTable:
    """Read a table of two columns, `path,label` or `path,value`; a first line that says so is optional.

    Labels are values where the column is called so, or where all are numbers and one has a fraction.

    Raises:
        LabelTableError: with all faults.
    """
    lines = _read_lines(data)
    columns = _header(lines[0][1]) if lines else None
    path_column, label_column, is_called_value = columns or (0, 1, False)
    rows, faults = [], []
    for line, cells in lines[1 if columns else 0 :]:
        if len(cells) <= max(path_column, label_column) or (columns is None and len(cells) != 2):
            faults.append(
                LineFault(
                    line, f"has {len(cells)} columns; write the path, a comma and the label, or take the table out"
                )
            )
        else:
            rows.append(LabelRow(line, cells[path_column].strip(), cells[label_column].strip()))
    holds_values = is_called_value or _are_fractions(rows)
    faults += [*_row_faults(rows, holds_values), *([] if columns else _header_faults(rows))]
    if not rows and not faults:
        faults.append(LineFault(1, "there are no rows; write one line for each image: its path, a comma and its label"))
    if faults:
        raise LabelTableError(sorted(faults, key=lambda fault: fault.line))
    return LabelTable(
        tuple(LabelRow(row.line, "/".join(split_path(row.path)), row.label) for row in rows), holds_values
    )


def _read_lines(data: bytes) -> list[tuple[int, list[str]]]:
    """(line number, cells) of the lines that are not empty."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise LabelTableError([LineFault(line, "is not UTF-8; save the table as UTF-8")]) from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    filled = ((reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells))
    try:
        lines = list(islice(filled, MOST_ROWS + 2))  # with the header, one more than there may be
    except csv.Error as error:
        message = f"cannot be read ({error}); quote cells that hold commas, quotes or line ends"
        raise LabelTableError([LineFault(reader.line_num, message)]) from None
    if len(lines) > MOST_ROWS + 1:
        message = f"is one too many; make several data sets, or tables of up to {MOST_ROWS:,} rows that are added"
        raise LabelTableError([LineFault(lines[-1][0], message)])
    return lines


def _header(cells: list[str]) -> tuple[int, int, bool] | None:
    """(column of the path, column of the label, whether that is called value), if this line names its columns."""
    names = [cell.strip().lower() for cell in cells]
    for name in ("label", "value"):
        if "path" in names and name in names:
            return names.index("path"), names.index(name), name == "value"
    return None


def _header_faults(rows: list[LabelRow]) -> Iterator[LineFault]:
    """A first line with names that are not known, which would become an image and a class of its own."""
    if len(rows) > 1 and not _is_value(rows[0].label) and all(_is_value(row.label) for row in rows[1:]):
        first = rows[0]
        yield LineFault(
            first.line,
            f"calls the columns {first.path!r} and {first.label!r}; call them path and label for classes, "
            "or path and value for numbers to be told",
        )


def _are_fractions(rows: list[LabelRow]) -> bool:
    try:
        values = [float(row.label) for row in rows]
    except ValueError:
        return False
    return any(not value.is_integer() for value in values if math.isfinite(value))


def _row_faults(rows: list[LabelRow], holds_values: bool) -> Iterator[LineFault]:
    seen: dict[tuple[str, ...], int] = {}
    for row in rows:
        parts = split_path(row.path)
        if not parts or ".." in parts or row.path.startswith(("/", "\\")) or parts[0][1:2] == ":":
            yield LineFault(row.line, f"{row.path!r} leads elsewhere; name images by their place beside the table")
        elif first := seen.get(parts):
            yield LineFault(row.line, f"{row.path} stands in line {first} already; keep one of the two")
        elif not row.label:
            yield LineFault(row.line, f"{row.path} has no label; write one, or take the line out")
        elif holds_values and not _is_value(row.label):
            yield LineFault(row.line, f"{row.label!r} is no number that can be learned; write a finite number")
        seen.setdefault(parts, row.line)


def _is_value(text: str) -> bool:
    try:
        return abs(float(text)) <= _GREATEST_VALUE
    except ValueError:
        return False
