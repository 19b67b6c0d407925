"""Why searches ended and what their trials took; what trials were worth at the steps before their full evaluation."""

from __future__ import annotations

import sqlalchemy as sa

from alembic import op

revision = "b83d5f1c6a07"
down_revision = "b4c1f0a96e27"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("searches", schema=None) as batch_op:
        batch_op.add_column(sa.Column("end_reason", sa.String(length=20), nullable=True))
        batch_op.add_column(sa.Column("end_message", sa.Text(), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("evaluator_s", sa.Double(), nullable=False, server_default="0"))
    with op.batch_alter_table("trials", schema=None) as batch_op:
        batch_op.add_column(sa.Column("rung", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("evaluator_s", sa.Double(), nullable=False, server_default="0"))
    op.create_table(
        "rungs",
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("search_id", sa.String(length=36), nullable=False),
        sa.Column("values", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["search_id"], ["searches.id"], name=op.f("fk_rungs_search_id_searches")),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name=op.f("fk_rungs_trial_id_trials")),
        sa.PrimaryKeyConstraint("trial_id", "number", name=op.f("pk_rungs")),
    )
    with op.batch_alter_table("rungs", schema=None) as batch_op:
        batch_op.create_index(op.f("ix_rungs_search_id"), ["search_id"])
