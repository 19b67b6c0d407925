"""One row of every kind, as a released version wrote them, and what must be true of them after every later upgrade.

`python -m tests.migrations.rows NAME` writes `assets/sqlite.NAME.sql` and `assets/postgresql.NAME.sql` from the schema
and the rows of the code that runs it. Do it once for each release, name it by the release, and never change it.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from search_spaces.costs import WorkloadKind
from search_spaces.objectives import Metric, Provenance
from service.db import make_engine, transaction, upgrade
from service.measurements.actions import NewMeasurement, WorkloadKey, record
from service.measurements.conditions import conditions_digest, digest_of
from service.models import (
    Artifact,
    Conditions,
    Device,
    Event,
    Export,
    Finalist,
    Measurement,
    Preparation,
    Search,
    Trial,
    Workload,
)
from service.states import SearchState
from tests.servers import find_postgres, running_postgres

ASSETS = Path(__file__).parent / "assets"
SEARCH_ID = "11111111-2222-3333-4444-555555555555"
WHEN = datetime(2026, 11, 23, 12, 30, 15, 123456, tzinfo=UTC)
SPEC = {"name": "kept", "budget": {"trials": 2}}
DESIGN = {"channels/block1.pointwise": 48, "precision/block1": "w8a8"}


def add_rows(session: Session) -> None:
    session.add(
        Search(
            id=SEARCH_ID,
            name="kept",
            state=SearchState.SUCCEEDED,
            spec=SPEC,
            idempotency_key="key",
            body_digest="d" * 64,
            event_count=1,
            finished_count=1,
            created_at=WHEN,
        )
    )
    session.add(
        Device(
            name="local-cpu",
            capabilities={"name": "local-cpu"},
            fingerprint_digest=digest_of({}),
            announced_at=WHEN,
            seen_at=WHEN,
        )
    )
    session.add(
        Artifact(
            digest="a" * 64, filename="net.onnx", media_type="application/onnx", size_bytes=3 * 2**31, created_at=WHEN
        )
    )
    session.flush()
    trial = Trial(
        search_id=SEARCH_ID,
        number=0,
        state="succeeded",
        design=DESIGN,
        design_key="k" * 64,
        values={"accuracy": 0.9},
        finish_number=1,
        attempt=2,
    )
    session.add_all([trial, Preparation(search_id=SEARCH_ID, state="succeeded")])
    session.flush()
    session.add_all(
        [
            Finalist(search_id=SEARCH_ID, trial_id=trial.id, state="succeeded", values={"accuracy": 0.89}),
            Export(id="e" * 36, search_id=SEARCH_ID, trial_id=trial.id, state="succeeded", artifact_digest="a" * 64),
            Event(search_id=SEARCH_ID, seq=1, kind="state", data={"state": "queued"}),
        ]
    )
    measured = NewMeasurement(
        workload=WorkloadKey(WorkloadKind.NETWORK, "w" * 64, ""),
        device="local-cpu",
        fingerprint={"cpu": "x"},
        protocol={"batch": 1},
        metric=Metric.LATENCY_S,
        median=1e-3,
        lower_quartile=9e-4,
        upper_quartile=2e-3,
        count=1,
        samples=(1e-3,),
        anchor_ratio=None,
        provenance=Provenance.MEASURED,
    )
    record(session, [measured], trial_id=trial.id)


def check_rows(session: Session) -> None:
    """What was kept is there, and means the same."""
    search = session.get_one(Search, SEARCH_ID)
    assert (search.state, search.spec, search.created_at) == (SearchState.SUCCEEDED, SPEC, WHEN)
    trial = session.scalars(select(Trial)).one()
    assert (trial.design, trial.values, trial.attempt, trial.baseline) == (DESIGN, {"accuracy": 0.9}, 2, False)
    assert trial.sources == {"latency_s": "measured"}
    assert session.scalars(select(Finalist)).one().trial_id == trial.id
    assert session.scalars(select(Export)).one().artifact_digest == "a" * 64
    _check_measurement(session, trial.id)
    assert session.scalars(select(Event)).one().data == {"state": "queued"}
    assert session.get_one(Artifact, "a" * 64).size_bytes == 3 * 2**31
    assert session.get_one(Device, "local-cpu").seen_at == WHEN
    assert session.scalars(select(Preparation)).one().state == "succeeded"


def _check_measurement(session: Session, trial_id: int) -> None:
    measured, workload, conditions = session.execute(
        select(Measurement, Workload, Conditions)
        .join_from(Measurement, Workload, Measurement.workload_id == Workload.id)
        .join(Conditions, Measurement.conditions_id == Conditions.id)
    ).one()
    figures = (measured.lower_quartile, measured.median, measured.upper_quartile, measured.count, measured.samples)
    assert figures == (9e-4, 1e-3, 2e-3, 1, [1e-3])
    assert (measured.metric, measured.provenance, measured.trial_id) == ("latency_s", "measured", trial_id)
    assert (measured.anchor_ratio, measured.origin, measured.import_id) == (None, None, None)
    assert (workload.kind, workload.digest, workload.signature) == ("network", "w" * 64, "")
    assert (conditions.device, conditions.fingerprint, conditions.protocol) == (
        "local-cpu",
        {"cpu": "x"},
        {"batch": 1},
    )
    assert conditions.fingerprint_digest == digest_of({"cpu": "x"})
    assert conditions.digest == conditions_digest("local-cpu", {"cpu": "x"}, {"batch": 1})
    assert session.get_one(Device, "local-cpu").fingerprint_digest == digest_of({})


def _fill(url: str) -> None:
    upgrade(url)
    engine = make_engine(url)
    with transaction(engine) as session:
        add_rows(session)
    engine.dispose()


def _dump_sqlite() -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kept.db"
        _fill(f"sqlite:///{path}")
        connection = sqlite3.connect(path)
        text = "\n".join(connection.iterdump())
        connection.close()
    return text + "\n"


def _dump_postgres() -> str:
    with running_postgres() as server:
        url = f"{server}/postgres"
        _fill(url)
        command = [find_postgres("pg_dump"), "--inserts", "--no-owner", "--no-privileges", url]
        text = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    # What follows a backslash is for psql alone; a driver would not understand it.
    return "\n".join(line for line in text.splitlines() if not line.startswith("\\")) + "\n"


def main(name: str) -> None:
    ASSETS.mkdir(exist_ok=True)
    for kind, dump in (("sqlite", _dump_sqlite), ("postgresql", _dump_postgres)):
        path = ASSETS / f"{kind}.{name}.sql"
        if path.exists():
            raise SystemExit(f"{path} is kept from a release; it must not change")
        path.write_text(dump())


if __name__ == "__main__":
    main(sys.argv[1])
