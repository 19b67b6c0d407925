"""The measurement database with a million rows: how fast a table is imported, and how soon a network is looked up.

The table has a million latencies of 32,000 layers under several conditions, as a CSV and as a Parquet file; the time is
that of everything between the file and the commit: reading, checking, comparing with the work, storing; CPU seconds are
those of this process, without a server's, and tell how much of the time others had the processor. A lookup is of
30 workloads, of MobileNet-V2's first blocks, on one device under one protocol, by `service.measurements.queries.lookup`
in a transaction of its own. A profile is what a worker stores by `record`. Prints a table and writes
benchmarks/results/measurements.json.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, func, select

from search_spaces.capabilities import DeviceCapabilities
from search_spaces.catalog import build_network
from search_spaces.costs import Workload, workloads
from search_spaces.objectives import Metric, Provenance
from search_spaces.precision import Precision
from search_spaces.spec import Family, NetworkSpec
from search_spaces.tables.apq import conv_layer
from service.db import make_engine, reading, transaction, upgrade
from service.devices.actions import announce, this_process
from service.measurements.actions import NewMeasurement, WorkloadKey, record
from service.measurements.imports import import_table
from service.measurements.queries import lookup
from service.measurements.table_settings import TableSettings
from service.models import Measurement
from tests.servers import running_postgres

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "measurements.json"
ROWS = 1_000_000
WORKLOADS = 32_000
RUNTIMES = 8
LOOKUPS = 200
LOOKED_UP = 30
PROFILE_ROWS = 5_000
DEVICE = DeviceCapabilities(name="bench", description="", precisions=("fp32",), metrics=(Metric.LATENCY_S,))
NETWORK = build_network(
    NetworkSpec(family=Family.MOBILENET_V2, width=1.0, input=(3, 224, 224)), 1000, (0.5,) * 3, (0.5,) * 3
)


def main() -> None:
    load = round(os.getloadavg()[0], 1)  # of what else the machine does: it adds to the times
    table = make_table()
    contents = {"csv": as_csv(table), "parquet": as_parquet(table)}
    rows = [measure(kind, contents) for kind in ("sqlite", "postgresql")]
    protocol: dict[str, Any] = {
        "rows": ROWS,
        "workloads": WORKLOADS,
        "conditions": RUNTIMES * 4,
        "file_mb": {form: round(len(content) / 1e6, 1) for form, content in contents.items()},
        "lookups": LOOKUPS,
        "profile_rows": PROFILE_ROWS,
        "cores": len(os.sched_getaffinity(0)),
        "python": sys.version.split()[0],
        "load_before": load,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"protocol": protocol, "rows": rows}, indent=2) + "\n")
    show(rows)


def make_table() -> pa.Table:
    """Latencies in ms that the layers' work could take; each row is one of a layer, a runtime, and 1 to 4 threads."""
    known = list({one.digest: one for one in workloads(NETWORK)}.values())
    layers = [*known, *make_layers(WORKLOADS - len(known))]
    which = np.arange(ROWS) % WORKLOADS
    conditions = np.arange(ROWS) // WORKLOADS
    values = np.random.default_rng(0).lognormal(-3.0, 0.3, ROWS)
    return pa.table(
        {
            "workload": pa.array([one.signature for one in layers]).take(pa.array(which)),
            "metric": pa.array(["latency_s"]).take(pa.array(np.zeros(ROWS, np.int64))),
            "runtime": pa.array([f"runtime {number}" for number in range(RUNTIMES)]).take(
                pa.array(conditions % RUNTIMES)
            ),
            "threads": pa.array(1 + conditions // RUNTIMES),
            "median_ms": values,
            "lower_quartile_ms": values * 0.98,
            "upper_quartile_ms": values * 1.03,
            "count": pa.array(np.full(ROWS, 50)),
        }
    )


def make_layers(count: int) -> list[Workload]:
    shapes = [
        (channels, outputs, size, kernel, Precision(weight, activation))
        for size in (7, 14, 28)
        for kernel in (1, 3)
        for channels in range(8, 264, 8)
        for outputs in range(8, 264, 8)
        for weight in (4, 6, 8)
        for activation in (4, 8)
    ]
    assert len(shapes) >= count
    return [
        conv_layer((channels, outputs), size, kernel, 1, kernel // 2, 1, precision)
        for channels, outputs, size, kernel, precision in shapes[:count]
    ]


def as_csv(table: pa.Table) -> bytes:
    content = io.BytesIO()
    pa_csv.write_csv(table, content)
    return content.getvalue()


def as_parquet(table: pa.Table) -> bytes:
    content = io.BytesIO()
    pq.write_table(table, content)
    return content.getvalue()


def measure(kind: str, contents: dict[str, bytes]) -> dict[str, Any]:
    row: dict[str, Any] = {"database": kind}
    for form, content in contents.items():
        with fresh_database(kind) as engine:
            began, began_cpu = time.perf_counter(), time.process_time()
            imported = import_table(engine, io.BytesIO(content), f"bench.{form}", settings())
            seconds, cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
            assert imported.report["measurements"] == ROWS
            row[f"{form}_import_s"] = round(seconds, 2)
            row[f"{form}_import_cpu_s"] = round(cpu_s, 2)
            row[f"{form}_rows_per_s"] = round(ROWS / seconds)
            if form == "parquet":
                row |= measure_lookups(engine) | measure_profile(engine)
    return row


def settings() -> TableSettings:
    return TableSettings(device=DEVICE.name, batch=1, provenance=Provenance.MEASURED)


def measure_lookups(engine: Engine) -> dict[str, Any]:
    """Milliseconds of one lookup among a million rows, and how many workloads it is of."""
    digests = list(dict.fromkeys(one.digest for one in workloads(NETWORK)))[:LOOKED_UP]
    told = {"batch": 1, "threads": 2, "runtime": "runtime 3"}
    times_ms = []
    for _ in range(LOOKUPS):
        began = time.perf_counter()
        with reading(engine) as session:
            found = lookup(session, DEVICE.name, digests, Metric.LATENCY_S, protocol=told)
        times_ms.append(1e3 * (time.perf_counter() - began))
        assert set(found) == set(digests)
    with reading(engine) as session:
        assert session.scalar(select(func.count()).select_from(Measurement)) == ROWS
    return {
        "looked_up": len(digests),
        "lookup_ms": round(median(times_ms), 2),
        "lookup_p95_ms": round(float(np.percentile(times_ms, 95)), 2),
    }


def measure_profile(engine: Engine) -> dict[str, Any]:
    """Rows a second of what a worker stores, with 20 samples each."""
    known = [WorkloadKey(one.kind, one.digest, one.signature) for one in workloads(NETWORK)]
    rows = [
        NewMeasurement(
            workload=known[number % len(known)],
            device=DEVICE.name,
            fingerprint={},
            protocol={"batch": 1, "threads": 1, "candidate": number // len(known)},
            metric=Metric.LATENCY_S,
            median=1e-3,
            lower_quartile=9e-4,
            upper_quartile=1.1e-3,
            count=20,
            samples=(1e-3,) * 20,
            anchor_ratio=None,
            provenance=Provenance.MEASURED,
        )
        for number in range(PROFILE_ROWS)
    ]
    began = time.perf_counter()
    with transaction(engine) as session:
        record(session, rows)
    return {"profile_rows_per_s": round(PROFILE_ROWS / (time.perf_counter() - began))}


@contextmanager
def fresh_database(kind: str) -> Iterator[Engine]:
    if kind == "sqlite":
        with tempfile.TemporaryDirectory(prefix="espalier-measurements-") as folder:
            yield from prepared(f"sqlite:///{folder}/espalier.db")
        return
    with running_postgres() as server:
        with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE bench")
        yield from prepared(f"{server}/bench")


def prepared(url: str) -> Iterator[Engine]:
    upgrade(url)
    engine = make_engine(url)
    with transaction(engine) as session:
        announce(session, DEVICE, this_process())
    yield engine
    engine.dispose()


def show(rows: list[dict[str, Any]]) -> None:
    table = Table(title=f"{ROWS:,} measurements of {WORKLOADS:,} workloads")
    for name in rows[0]:
        table.add_column(name.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*(f"{value:,}" if isinstance(value, int | float) else value for value in row.values()))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
