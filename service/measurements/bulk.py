"""Writes very many measurements: by COPY to PostgreSQL, by one prepared statement to SQLite, beneath SQLAlchemy."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
from sqlalchemy.orm import Session

_ROWS_AT_ONCE = 50_000
_CACHE_KIB = 131_072
COLUMNS = (
    *("workload_id", "conditions_id", "metric", "median", "lower_quartile", "upper_quartile", "count", "samples"),
    *("anchor_ratio", "provenance", "origin", "import_id", "created_at"),
)


def insert_measurements(session: Session, table: pa.Table) -> None:
    """Add rows; the caller commits.

    Args:
        session: in a writing transaction.
        table: has `COLUMNS`; `samples` is JSON text, `created_at` of type timestamp[us, UTC].
    """
    connection = session.connection()
    driver: Any = connection.connection.driver_connection
    # In the order of the index that lookups use, which then grows at its end; it is far larger than what is cached.
    ordered = table.select(list(COLUMNS)).sort_by([("workload_id", "ascending"), ("conditions_id", "ascending")])
    if connection.dialect.name == "postgresql":
        _copy(driver, ordered)
    else:
        _execute_many(driver, ordered)


def _copy(driver: Any, table: pa.Table) -> None:
    names = ", ".join(f'"{name}"' for name in COLUMNS)
    options = pa_csv.WriteOptions(include_header=False)
    with driver.cursor() as cursor:
        with cursor.copy(f"COPY measurements ({names}) FROM STDIN (FORMAT csv)") as copy:
            for batch in table.to_batches(_ROWS_AT_ONCE):
                text = io.BytesIO()
                pa_csv.write_csv(batch, text, options)
                copy.write(text.getbuffer())
        if table.num_rows >= _ROWS_AT_ONCE:
            # Lookups must not wait for the server to notice by itself how large the tables are now.
            cursor.execute("ANALYZE measurements, workloads, conditions")


def _execute_many(driver: Any, table: pa.Table) -> None:
    names = ", ".join(f'"{name}"' for name in COLUMNS)
    marks = ", ".join("?" * len(COLUMNS))
    (usual,) = driver.execute("PRAGMA cache_size").fetchone()
    driver.execute(f"PRAGMA cache_size = {-_CACHE_KIB}")
    try:
        _insert_batches(driver, table, f"INSERT INTO measurements ({names}) VALUES ({marks})")
    finally:
        driver.execute(f"PRAGMA cache_size = {usual}")


def _insert_batches(driver: Any, table: pa.Table, statement: str) -> None:
    for batch in table.to_batches(_ROWS_AT_ONCE):
        # As SQLAlchemy writes times to SQLite.
        unzoned = batch.column("created_at").cast(pa.timestamp("us"))
        columns = [batch.column(name).to_pylist() for name in COLUMNS[:-1]]
        columns.append(pc.strftime(unzoned, format="%Y-%m-%d %H:%M:%S").to_pylist())
        driver.executemany(statement, zip(*columns, strict=True))
