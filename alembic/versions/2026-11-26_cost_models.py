"""Cost models with their versions, and what they said of trials that were measured."""

from __future__ import annotations

import sqlalchemy as sa

from alembic import op

revision = "9b1de27c60f3"
down_revision = "c4d07e5b91a2"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_tables()
    for table in ("trials", "finalists"):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.add_column(sa.Column("sources", sa.JSON(), nullable=False, server_default="{}"))
    # Until now devices told nothing but latency, and all of it was measured, or simulated by what was installed.
    told = "'{\"latency_s\": \"' || provenance || '\"}'"
    if op.get_bind().dialect.name == "postgresql":
        told = f"CAST({told} AS json)"
    op.execute(
        f"UPDATE trials SET sources = (SELECT {told} FROM measurements WHERE measurements.trial_id = trials.id) "
        "WHERE id IN (SELECT trial_id FROM measurements)"
    )


def _create_tables() -> None:
    op.create_table(
        "cost_models",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("conditions_id", sa.Integer(), nullable=False),
        sa.Column("metric", sa.String(length=40), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("samples", sa.Integer(), nullable=False),
        sa.Column("report", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["conditions_id"], ["conditions.id"], name=op.f("fk_cost_models_conditions_id_conditions")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cost_models")),
        sa.UniqueConstraint(
            "conditions_id", "metric", "version", name=op.f("uq_cost_models_conditions_id_metric_version")
        ),
    )
    op.create_table(
        "residuals",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("cost_model_id", sa.Integer(), nullable=False),
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("metric", sa.String(length=40), nullable=False),
        sa.Column("predicted", sa.Double(), nullable=False),
        sa.Column("low", sa.Double(), nullable=False),
        sa.Column("high", sa.Double(), nullable=False),
        sa.Column("measured", sa.Double(), nullable=False),
        sa.Column("reason", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["cost_model_id"], ["cost_models.id"], name=op.f("fk_residuals_cost_model_id_cost_models")
        ),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name=op.f("fk_residuals_trial_id_trials")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_residuals")),
        sa.UniqueConstraint("trial_id", "metric", name=op.f("uq_residuals_trial_id_metric")),
    )
    with op.batch_alter_table("residuals", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_residuals_cost_model_id"), ["cost_model_id"], unique=False)
