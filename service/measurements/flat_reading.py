"""Opens a CSV or Parquet file of figures: batches of columns with known names. Values are looked at by others."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from search_spaces.faults import Fault
from service.measurements.faults import MOST_NAMED, RowFaults, refuse_table
from service.measurements.table_settings import UNITS, TableFormat, TableSettings, Unit

MOST_ROWS = 5_000_000
MOST_ROWS_ON_SQLITE = 1_000_000
"""It has one writer at a time, and all others wait for as long as a file is stored."""
MOST_BATCH_BYTES = 2**28
_BATCH_ROWS = 65_536
_BLOCK_BYTES = 2**25
_LONGEST_HEADER = 2**16

FIGURES = ("median", "lower_quartile", "upper_quartile")
OTHER_COLUMNS = (
    *("device", "kind", "workload", "workload_digest", "metric", "unit", "count", "anchor_ratio", "samples"),
    *("provenance", "origin", "fingerprint", "protocol", "batch", "threads", "runtime", "measured_at"),
)
UNIT_BY_SUFFIX = {str(unit).lower(): unit for unit in Unit}
SHORT_NAMES = {"latency": "latency_s", "energy": "energy_j", "memory": "memory_bytes"}


@dataclass(frozen=True)
class ValueColumn:
    """A column of medians.

    Attributes:
        name: as in the file.
        metric: that all its values are of; None: the column `metric` says so.
        unit: of all its values; None: the column `unit` says so.
        quartiles: names of the columns of lower and upper quartiles; empty where there are none.
    """

    name: str
    metric: str | None
    unit: Unit | None
    quartiles: tuple[str, ...] = ()


@dataclass(frozen=True)
class FlatFile:
    """An opened file: its columns, and its rows a batch at a time."""

    names: tuple[str, ...]
    values: tuple[ValueColumn, ...]
    batches: Iterator[pa.RecordBatch]


def open_flat(file: BinaryIO, settings: TableSettings, faults: RowFaults, most_rows: int = MOST_ROWS) -> FlatFile:
    """Read the names of the columns; rows come when they are asked for.

    Args:
        file: at its beginning.
        settings: says the format, or the first bytes do.
        faults: is told of rows that have another number of fields than the file has columns.
        most_rows: that a file may have.

    Raises:
        InvalidTableError: it is no such file, has columns of no meaning, or does not say what is in which unit.
    """
    is_parquet = settings.format is TableFormat.PARQUET or (settings.format is None and file.read(4) == b"PAR1")
    file.seek(0)
    names, batches = _open_parquet(file, most_rows) if is_parquet else _open_csv(file, faults, most_rows)
    return FlatFile(names, _value_columns(names, settings), batches)


def _open_parquet(file: BinaryIO, most_rows: int) -> tuple[tuple[str, ...], Iterator[pa.RecordBatch]]:
    try:
        parquet = pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise refuse_table(
            f"not a whole Parquet file ({_short(error)}): was it cut off on the way? Write it again"
        ) from None
    if parquet.metadata.num_rows > most_rows:
        raise refuse_table(f"{parquet.metadata.num_rows:,} rows; hand over at most {most_rows:,} at once")
    names = tuple(parquet.schema_arrow.names)
    _check_once(names)
    texts = _check_types(parquet.schema_arrow)
    # Texts stay in dictionaries: a few bytes can stand for millions of long ones.
    parquet = pq.ParquetFile(file, read_dictionary=texts)
    return names, _parquet_batches(parquet)


def _check_types(schema: pa.Schema) -> list[str]:
    """Refuse columns of other types before they are read; returns which are texts."""
    bad = [field for field in schema if not any(fits(field.type) for fits in (_is_text, *_PLAIN))]
    if bad:
        faults = (
            Fault(f"/columns/{field.name[:60]}", f"is of type {str(field.type)[:60]}; write texts, numbers or times")
            for field in bad[:MOST_NAMED]
        )
        raise refuse_table("columns of types that are not read", *faults)
    return [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]


_PLAIN = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_timestamp)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _check_once(names: tuple[str, ...]) -> None:
    if len(set(names)) < len(names):
        twice = sorted(name for name, times in Counter(names).items() if times > 1)
        raise refuse_table(f"columns of one name: {', '.join(twice)[:200]}; keep one of each")


def _parquet_batches(parquet: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    try:
        for batch in parquet.iter_batches(_BATCH_ROWS):
            if batch.nbytes > MOST_BATCH_BYTES:
                raise refuse_table(f"{batch.num_rows:,} of its rows have more than {MOST_BATCH_BYTES:,} bytes")
            yield batch
    except (pa.ArrowException, OSError) as error:
        raise refuse_table(f"the Parquet file is damaged ({_short(error)}); write it again") from None


def _open_csv(file: BinaryIO, faults: RowFaults, most_rows: int) -> tuple[tuple[str, ...], Iterator[pa.RecordBatch]]:
    names = _csv_names(file)
    _check_once(names)

    def note(row: Any) -> str:
        message = f"{row.actual_columns} fields where the first line has {row.expected_columns} names"
        faults.add(np.array([(row.number or 2) - 1]), "", message)
        return "skip"

    try:
        reader = pa_csv.open_csv(
            file,
            # Rows are numbered only where one thread reads them.
            read_options=pa_csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES),
            parse_options=pa_csv.ParseOptions(invalid_row_handler=note),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
            ),
        )
    except (pa.ArrowException, OSError) as error:
        raise refuse_table(f"not a CSV file that can be read ({_short(error)})") from None
    return names, _csv_batches(reader, most_rows)


def _csv_batches(reader: Any, most_rows: int) -> Iterator[pa.RecordBatch]:
    count = 0
    try:
        for batch in reader:
            count += batch.num_rows
            if count > most_rows:
                raise refuse_table(f"more than {most_rows:,} rows; hand over at most so many at once")
            yield batch
    except (pa.ArrowException, OSError) as error:
        raise refuse_table(f"the CSV file cannot be read after row {count:,} ({_short(error)})") from None


def _csv_names(file: BinaryIO) -> tuple[str, ...]:
    line = file.readline(_LONGEST_HEADER)
    file.seek(0)
    try:
        names = next(csv.reader([line.decode("utf-8-sig")]))
    except (UnicodeDecodeError, StopIteration, csv.Error):
        raise refuse_table("the first line is to name the columns, in UTF-8, with commas between") from None
    if len(names) == 1 and (";" in names[0] or "\t" in names[0]):
        raise refuse_table("columns are to be separated by commas; export the file anew as CSV with commas")
    return tuple(names)


def _value_columns(names: tuple[str, ...], settings: TableSettings) -> tuple[ValueColumn, ...]:
    """Which columns hold figures, of what, in which unit."""
    found = [_value_column(name, names, settings) for name in names if name not in OTHER_COLUMNS]
    unknown = [
        name for name, column in zip((n for n in names if n not in OTHER_COLUMNS), found, strict=True) if not column
    ]
    if unknown:
        raise refuse_table(
            "columns of no meaning here; leave them out, or rename them",
            *(Fault(f"/columns/{name[:60]}", _hint(name)) for name in unknown[:MOST_NAMED]),
        )
    medians = tuple(column for column in found if isinstance(column, ValueColumn))
    _check_metrics(medians, names)
    return medians


def _value_column(name: str, names: tuple[str, ...], settings: TableSettings) -> ValueColumn | bool:
    """A column of medians; True of quartiles, which go with one; False of any other."""
    stem, unit = split_unit(name)
    if stem in FIGURES[1:]:
        return "median" + name.removeprefix(stem) in names
    if stem != "median" and stem not in SHORT_NAMES:
        return False
    metric = SHORT_NAMES.get(stem)
    if unit is None and "unit" not in names:
        unit = settings.unit
        if unit is None:
            raise refuse_table(
                f"nothing says which unit `{name}` is in: call it `{stem}_ms` or the like, add a column `unit`, "
                "or give the unit",
                Fault("/settings/unit", f"one of {', '.join(Unit)}"),
            )
    elif unit is not None and "unit" in names:
        raise refuse_table(f"both `{name}` and the column `unit` say a unit; keep one of the two")
    if metric is not None and unit is not None and UNITS[unit][0] != metric:
        raise refuse_table(f"`{name}` cannot be in {unit}", Fault("/settings/unit", f"not a unit of {metric}"))
    suffix = name.removeprefix(stem)
    quartiles = tuple(f"{part}{suffix}" for part in FIGURES[1:])
    has_quartiles = stem == "median" and all(part in names for part in quartiles)
    if stem == "median" and not has_quartiles and any(part in names for part in quartiles):
        raise refuse_table(f"give both `{quartiles[0]}` and `{quartiles[1]}`, or neither")
    return ValueColumn(name, metric, unit, quartiles if has_quartiles else ())


def split_unit(name: str) -> tuple[str, Unit | None]:
    """`latency_ms` is (`latency`, ms); a name without a unit is itself."""
    stem, _, suffix = name.rpartition("_")
    unit = UNIT_BY_SUFFIX.get(suffix.lower())
    return (stem, unit) if stem and unit is not None else (name, None)


def _check_metrics(columns: tuple[ValueColumn, ...], names: tuple[str, ...]) -> None:
    if not columns:
        raise refuse_table(
            "no column of figures: name one `latency_ms`, `energy_mj`, or `metric` and `median` and `unit`"
        )
    general = [column.name for column in columns if column.metric is None]
    if general and "metric" not in names:
        raise refuse_table(
            f"nothing says what `{general[0]}` is of: add a column `metric`, or call it `latency_ms` or so"
        )
    named = [column.metric for column in columns if column.metric is not None]
    if len(general) > 1 or (general and named) or len(set(named)) < len(named):
        shown = ", ".join(f"`{column.name}`" for column in columns)
        raise refuse_table(f"{shown} say the same in several units or ways; keep one")


def _hint(name: str) -> str:
    lower = name.lower()
    if lower != name and (lower in OTHER_COLUMNS or split_unit(lower)[0] in (*FIGURES, *SHORT_NAMES)):
        return f"write {lower}"
    return "docs/measurements.md names all columns"


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
