"""Measurements as a CSV or Parquet file that can be imported elsewhere, a piece at a time."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from sqlalchemy import Engine

from search_spaces.objectives import Metric
from service.db import reading
from service.measurements.conditions import canonical_json
from service.measurements.queries import Filters, Found, list_measurements
from service.measurements.table_settings import UNITS, TableFormat

ROWS_AT_ONCE = 5_000
_TEXT = pa.string()
SCHEMA = pa.schema(
    [
        ("device", _TEXT),
        ("kind", _TEXT),
        ("workload", _TEXT),
        ("workload_digest", _TEXT),
        ("metric", _TEXT),
        ("unit", _TEXT),
        ("median", pa.float64()),
        ("lower_quartile", pa.float64()),
        ("upper_quartile", pa.float64()),
        ("count", pa.int64()),
        ("anchor_ratio", pa.float64()),
        ("samples", _TEXT),
        ("provenance", _TEXT),
        ("origin", _TEXT),
        ("fingerprint", _TEXT),
        ("protocol", _TEXT),
        ("measured_at", pa.timestamp("us", tz="UTC")),
    ]
)
_BASE_UNITS = {metric: str(unit) for unit, (metric, factor) in UNITS.items() if factor == 1.0}


def export_table(engine: Engine, filters: Filters, form: TableFormat) -> Iterator[bytes]:
    """Pieces of the file. Each page is read by itself, so that no transaction lasts as long as a slow reader."""
    return _as_parquet(engine, filters) if form is TableFormat.PARQUET else _as_csv(engine, filters)


def _as_csv(engine: Engine, filters: Filters) -> Iterator[bytes]:
    yield (",".join(f'"{name}"' for name in SCHEMA.names) + "\n").encode()
    options = pa_csv.WriteOptions(include_header=False)
    for batch in _batches(engine, filters):
        text = io.BytesIO()
        pa_csv.write_csv(batch, text, options)
        yield text.getvalue()


def _as_parquet(engine: Engine, filters: Filters) -> Iterator[bytes]:
    written = _Pieces()
    with pq.ParquetWriter(written, SCHEMA) as writer:
        for batch in _batches(engine, filters):
            writer.write_batch(batch)
            yield written.take()
    yield written.take()


class _Pieces(io.RawIOBase):
    """What was written, until it is taken away."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: list[bytes] = []
        self._taken_bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        piece = bytes(data)  # type: ignore[call-overload]
        self._kept.append(piece)
        self._taken_bytes += len(piece)
        return len(piece)

    def tell(self) -> int:
        return self._taken_bytes

    def take(self) -> bytes:
        piece = b"".join(self._kept)
        self._kept.clear()
        return piece


def _batches(engine: Engine, filters: Filters) -> Iterator[pa.RecordBatch]:
    after = 0
    while True:
        with reading(engine) as session:
            found = list_measurements(session, filters, limit=ROWS_AT_ONCE, after=after, with_samples=True)
            rows = [_row(one) for one in found]
        if rows:
            yield pa.RecordBatch.from_pylist(rows, schema=SCHEMA)
            after = found[-1].measurement.id
        if len(rows) < ROWS_AT_ONCE:
            return


def _row(found: Found) -> dict[str, object]:
    row, workload, conditions = found.measurement, found.workload, found.conditions
    return {
        "device": conditions.device,
        "kind": workload.kind,
        "workload": workload.signature or None,
        "workload_digest": workload.digest,
        "metric": row.metric,
        "unit": _BASE_UNITS[Metric(row.metric)],
        "median": row.median,
        "lower_quartile": row.lower_quartile,
        "upper_quartile": row.upper_quartile,
        "count": row.count,
        "anchor_ratio": row.anchor_ratio,
        "samples": json.dumps(row.samples),
        "provenance": row.provenance,
        "origin": row.origin,
        "fingerprint": canonical_json(conditions.fingerprint),
        "protocol": canonical_json(conditions.protocol),
        "measured_at": row.created_at,
    }
