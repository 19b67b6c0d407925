"""Measurements of workloads under conditions; the fingerprint that a device has now; tables that were imported."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import sqlalchemy as sa

from alembic import op

revision = "5e4c1f0b7d92"
down_revision = "7a243b8b9925"
branch_labels = None
depends_on = None

ROWS_AT_ONCE = 1000


def upgrade() -> None:
    op.create_table(
        "workloads",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("signature", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workloads")),
        sa.UniqueConstraint("digest", name=op.f("uq_workloads_digest")),
    )
    op.create_table(
        "conditions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("device", sa.String(length=100), nullable=False),
        sa.Column("fingerprint_digest", sa.String(length=64), nullable=False),
        sa.Column("fingerprint", sa.JSON(), nullable=False),
        sa.Column("protocol", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_conditions")),
        sa.UniqueConstraint("digest", name=op.f("uq_conditions_digest")),
    )
    with op.batch_alter_table("conditions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_conditions_device"), ["device"], unique=False)
    op.create_table(
        "measurement_imports",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("filename", sa.String(length=200), nullable=False),
        sa.Column("report", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_measurement_imports")),
        sa.UniqueConstraint("digest", name=op.f("uq_measurement_imports_digest")),
    )
    _upgrade_devices()
    _upgrade_measurements()


def _upgrade_devices() -> None:
    with op.batch_alter_table("devices", schema=None) as batch_op:
        batch_op.add_column(sa.Column("fingerprint_digest", sa.String(length=64), nullable=True))
    devices = sa.table(
        "devices",
        sa.column("name", sa.String()),
        sa.column("capabilities", sa.JSON()),
        sa.column("fingerprint_digest", sa.String()),
    )
    connection = op.get_bind()
    for name, capabilities in connection.execute(sa.select(devices.c.name, devices.c.capabilities)).all():
        digest = _digest(capabilities.get("fingerprint", {}))
        connection.execute(sa.update(devices).where(devices.c.name == name).values(fingerprint_digest=digest))
    with op.batch_alter_table("devices", schema=None) as batch_op:
        batch_op.alter_column("fingerprint_digest", existing_type=sa.String(length=64), nullable=False)


def _upgrade_measurements() -> None:
    with op.batch_alter_table("measurements", schema=None) as batch_op:
        batch_op.add_column(sa.Column("workload_id", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("conditions_id", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("count", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("origin", sa.String(length=20), nullable=True))
        batch_op.add_column(sa.Column("import_id", sa.String(length=36), nullable=True))
    _fill_measurements()
    with op.batch_alter_table("measurements", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_measurements_workload_key"))
        for name in ("device", "fingerprint", "workload_key", "protocol"):
            batch_op.drop_column(name)
        for name in ("workload_id", "conditions_id", "count"):
            batch_op.alter_column(name, existing_type=sa.Integer(), nullable=False)
    with op.batch_alter_table("measurements", schema=None) as batch_op:
        batch_op.create_index("ix_measurements_workload_id_conditions_id", ["workload_id", "conditions_id"])
        batch_op.create_index("ix_measurements_conditions_id_id", ["conditions_id", "id"])


def _fill_measurements() -> None:
    """Until now all was of whole networks, named by a design's digest. What was kept is taken for all there was."""
    measurements = sa.table(
        "measurements",
        sa.column("id", sa.Integer()),
        sa.column("device", sa.String()),
        sa.column("fingerprint", sa.JSON()),
        sa.column("workload_key", sa.String()),
        sa.column("protocol", sa.JSON()),
        sa.column("samples", sa.JSON()),
        sa.column("workload_id", sa.Integer()),
        sa.column("conditions_id", sa.Integer()),
        sa.column("count", sa.Integer()),
    )
    connection = op.get_bind()
    workload_ids: dict[str, int] = {}
    conditions_ids: dict[str, int] = {}
    last = 0
    while True:
        query = sa.select(measurements).where(measurements.c.id > last).order_by(measurements.c.id).limit(ROWS_AT_ONCE)
        rows = connection.execute(query).all()
        for row in rows:
            values = {
                "workload_id": _workload_id(connection, row.workload_key, workload_ids),
                "conditions_id": _conditions_id(connection, row, conditions_ids),
                "count": len(row.samples),
            }
            connection.execute(sa.update(measurements).where(measurements.c.id == row.id).values(**values))
            last = row.id
        if len(rows) < ROWS_AT_ONCE:
            return


def _workload_id(connection: sa.Connection, digest: str, known: dict[str, int]) -> int:
    table = sa.table("workloads", *(sa.column(name) for name in ("id", "digest", "kind", "signature")))
    if digest not in known:
        row = {"digest": digest, "kind": "network", "signature": ""}
        connection.execute(sa.insert(table).values(row))
        known[digest] = connection.execute(sa.select(table.c.id).where(table.c.digest == digest)).scalar_one()
    return known[digest]


def _conditions_id(connection: sa.Connection, row: Any, known: dict[str, int]) -> int:
    table = sa.table(
        "conditions",
        *(sa.column(name) for name in ("id", "digest", "device", "fingerprint_digest")),
        *(sa.column(name, sa.JSON()) for name in ("fingerprint", "protocol")),
    )
    digest = _digest({"device": row.device, "fingerprint": row.fingerprint, "protocol": row.protocol})
    if digest not in known:
        values = {
            "digest": digest,
            "device": row.device,
            "fingerprint_digest": _digest(row.fingerprint),
            "fingerprint": row.fingerprint,
            "protocol": row.protocol,
        }
        connection.execute(sa.insert(table).values(values))
        known[digest] = connection.execute(sa.select(table.c.id).where(table.c.digest == digest)).scalar_one()
    return known[digest]


def _digest(document: Any) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
