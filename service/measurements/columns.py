"""One column of a batch, whatever its type in the file: texts with codes, numbers, times. Knows no figure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from service.measurements.faults import RowFaults, refuse_table

ABSENT = -1
NO_TIME = np.iinfo(np.int64).min
_UTC = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class Texts:
    """A column of texts, of which each distinct one is looked at once.

    Attributes:
        codes: (n,) index into `values`; `ABSENT` where a row has none.
        values: distinct, in order of their first rows.
    """

    codes: np.ndarray
    values: list[str]

    def map(self, translated: np.ndarray) -> np.ndarray:
        """(n,) what each row's text was translated to; `ABSENT` where it has none."""
        found: np.ndarray = np.append(translated, ABSENT)[self.codes]
        return found


def texts(batch: pa.RecordBatch, name: str) -> Texts:
    """The column as texts; of a column that is not there, no row has any."""
    if name not in batch.schema.names:
        return Texts(np.full(batch.num_rows, ABSENT, np.int64), [])
    column = batch.column(name)
    if not pa.types.is_dictionary(column.type):
        column = pc.dictionary_encode(_cast(column, name, pa.string()))
    # Of a dictionary only what rows use is looked at, and never a text for each row.
    codes = column.indices.fill_null(ABSENT).to_numpy(zero_copy_only=False).astype(np.int64)
    used, firsts, inverse = np.unique(codes, return_index=True, return_inverse=True)
    order = np.argsort(np.where(used == ABSENT, len(codes), firsts))
    values = _cast(column.dictionary.take(pa.array(used[order][used[order] != ABSENT])), name, pa.string()).to_pylist()
    places = np.empty(len(used), np.int64)
    places[order] = np.arange(len(used))
    places[used == ABSENT] = ABSENT
    return Texts(places[inverse], values)


def numbers(batch: pa.RecordBatch, name: str, rows: np.ndarray, faults: RowFaults) -> np.ndarray:
    """(n,) float64, NaN where a row has none, or has what is no finite number, which `faults` is told of."""
    if name not in batch.schema.names:
        return np.full(batch.num_rows, np.nan)
    column = batch.column(name)
    if _is_text(column.type):
        values, present = _parse(batch, name, rows, faults)
    else:
        values, present = _as_floats(_cast(column, name, pa.float64()))
    bad = np.flatnonzero(present & ~np.isfinite(values))
    if len(bad):
        faults.add(rows[bad], name, "{} is not a finite number", values[bad[:20]].tolist())
        values[bad] = np.nan
    return values


def times(batch: pa.RecordBatch, name: str, rows: np.ndarray, faults: RowFaults) -> np.ndarray:
    """(n,) int64 microseconds since 1970, UTC; `NO_TIME` where a row has none. Without a zone it is taken for UTC."""
    if name not in batch.schema.names:
        return np.full(batch.num_rows, NO_TIME, np.int64)
    column = batch.column(name)
    if _is_text(column.type):
        return _parse_times(texts(batch, name), name, rows, faults)
    if not pa.types.is_timestamp(column.type):
        raise refuse_table(f"`{name}` is of type {column.type}; write times, or texts such as 2026-11-26T12:00:00Z")
    whole = _cast(column, name, pa.timestamp("us") if column.type.tz is None else _UTC).cast(pa.int64())
    found: np.ndarray = whole.fill_null(NO_TIME).to_numpy(zero_copy_only=False)
    return found


def _parse_times(column: Texts, name: str, rows: np.ndarray, faults: RowFaults) -> np.ndarray:
    read = [_read_time(text) for text in column.values]
    unreadable = np.array([one is None for one in read] + [False])
    bad = np.flatnonzero(unreadable[column.codes])
    if len(bad):
        faults.add(rows[bad], name, "write a time such as 2026-11-26T12:00:00Z")
    known = [NO_TIME if one is None else one for one in read]
    found: np.ndarray = np.array([*known, NO_TIME], np.int64)[column.codes]
    return found


def _read_time(text: str) -> int | None:
    """Microseconds; None of what is no time."""
    try:
        found = datetime.fromisoformat(text.strip())
        zoned = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    since = zoned - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _parse(batch: pa.RecordBatch, name: str, rows: np.ndarray, faults: RowFaults) -> tuple[np.ndarray, np.ndarray]:
    """Values, and which rows have one."""
    column = batch.column(name)
    if not pa.types.is_dictionary(column.type):
        try:
            return _as_floats(pc.utf8_trim_whitespace(_cast(column, name, pa.string())).cast(pa.float64()))
        except pa.ArrowInvalid:
            pass  # one by one, to tell which
    told = texts(batch, name)
    wrong = np.array([not _is_number(text) for text in told.values] + [False])[told.codes]
    bad = np.flatnonzero(wrong)
    if len(bad):
        shown = [told.values[told.codes[index]] for index in bad[:20]]
        faults.add(rows[bad], name, "{} is no number; write one with a point, such as 0.25", shown)
    read = [float(text) if _is_number(text) else math.nan for text in told.values]
    return np.array([*read, math.nan])[told.codes], (told.codes != ABSENT) & ~wrong


def _as_floats(column: Any) -> tuple[np.ndarray, np.ndarray]:
    values = column.to_numpy(zero_copy_only=False).astype(np.float64)
    return values, ~np.asarray(column.is_null())


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def _is_text(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _cast(column: Any, name: str, kind: Any) -> Any:
    try:
        return column.cast(kind)
    except (pa.ArrowException, OverflowError) as error:
        message = " ".join(str(error).split())[:120]
        raise refuse_table(f"the column `{name}` is of type {column.type}, of no use here ({message})") from None
