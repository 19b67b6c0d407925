"""Tables in the formats that others have published, as batches like those of a flat file."""

from __future__ import annotations

from typing import BinaryIO

import pyarrow as pa

from search_spaces.faults import Fault
from search_spaces.precision import Precision, parse_precision
from search_spaces.tables.apq import read_apq
from search_spaces.tables.haq import read_haq
from search_spaces.tables.networks import catalog_network
from search_spaces.tables.proxyless import read_proxyless
from search_spaces.tables.row import QUARTILE_OF_NORMAL, TableError, TableRow
from service.measurements.conditions import canonical_json
from service.measurements.faults import MOST_NAMED, refuse_table
from service.measurements.flat_reading import FlatFile, ValueColumn
from service.measurements.table_settings import TableFormat, TableSettings

MOST_BYTES = 2**26
_NEEDED = {
    TableFormat.HAQ: {
        "family": "which network of the catalog the layers are of",
        "input": "(channels, height, width) of that network's input",
        "classes": "how many outputs it has",
        "clock_hz": "how many cycles are a second",
        "count": "how many values each figure is of; 1 for a simulator's",
    },
    TableFormat.PROXYLESS: {"precision": "which precision the blocks were measured in, such as fp32"},
    TableFormat.APQ: {"count": "how many values each figure is of; 1 for a simulator's"},
}


def open_public(file: BinaryIO, settings: TableSettings) -> FlatFile:
    """Read a table whole; they are small.

    Raises:
        InvalidTableError: it is not what it is said to be, or what it does not say is not said.
    """
    assert settings.format is not None
    missing = {key: why for key, why in _NEEDED[settings.format].items() if getattr(settings, key) is None}
    if missing:
        faults = [Fault(f"/settings/{key}", f"say {why}") for key, why in missing.items()]
        raise refuse_table("the file does not say all that has to be known", *faults)
    content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise refuse_table(f"a table in this format has at most {MOST_BYTES:,} bytes")
    try:
        return _flat(_rows(content, settings), settings)
    except TableError as error:
        raise refuse_table(
            f"{len(error.faults):,} faults",
            *(Fault(f"/{where}", what) for where, what in error.faults[:MOST_NAMED]),
        ) from None


def _rows(content: bytes, settings: TableSettings) -> list[TableRow]:
    if settings.format is TableFormat.APQ:
        return read_apq(content)
    if settings.format is TableFormat.PROXYLESS:
        return read_proxyless(content, _precision(settings))
    assert settings.family is not None
    assert settings.input is not None
    assert settings.classes is not None
    assert settings.clock_hz is not None
    network = catalog_network(settings.family, settings.width, settings.input, settings.stem_stride, settings.classes)
    return read_haq(content, network, settings.clock_hz)


def _precision(settings: TableSettings) -> Precision:
    try:
        return parse_precision(settings.precision or "")
    except ValueError as error:
        raise TableError([("settings/precision", str(error))]) from None


def _flat(rows: list[TableRow], settings: TableSettings) -> FlatFile:
    """A table tells means, and sometimes deviations: the protocol says so, quartiles are those of a normal spread."""
    stated = {"batch": settings.batch, "threads": settings.threads, "runtime": settings.runtime, "statistic": "mean"}
    if settings.format is TableFormat.APQ or settings.format is TableFormat.HAQ:
        stated.pop("statistic")
    missing = [key for key in ("batch", "threads") if stated[key] is None]
    if missing:
        raise refuse_table(
            "the file does not say all that has to be known",
            *(Fault(f"/settings/{key}", f"say the {key} that the figures were taken with") for key in missing),
        )
    protocol = canonical_json({key: value for key, value in stated.items() if value is not None})
    spreads = [min(QUARTILE_OF_NORMAL * row.deviation, 0.999 * row.value) for row in rows]
    columns = {
        "workload": pa.array([row.workload.signature for row in rows]),
        "protocol": pa.array([protocol] * len(rows)),
        "metric": pa.array([str(row.metric) for row in rows]),
        "unit": pa.array(["J" if row.metric.endswith("_j") else "s" for row in rows]),
        "median": pa.array([row.value for row in rows], pa.float64()),
        "lower_quartile": pa.array(
            [row.value - spread for row, spread in zip(rows, spreads, strict=True)], pa.float64()
        ),
        "upper_quartile": pa.array(
            [row.value + spread for row, spread in zip(rows, spreads, strict=True)], pa.float64()
        ),
        "count": pa.array([row.count for row in rows], pa.int64()),
    }
    batch = pa.RecordBatch.from_pydict(columns)
    value = ValueColumn("median", None, None, ("lower_quartile", "upper_quartile"))
    return FlatFile(tuple(columns), (value,), iter([batch]))
