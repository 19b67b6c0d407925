"""Refinements: designs that are trained on for long, once a search is over."""

from __future__ import annotations

import sqlalchemy as sa

from alembic import op

revision = "e07b5a2c94d1"
down_revision = "9b1de27c60f3"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "refinements",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("search_id", sa.String(length=36), nullable=False),
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("activity", sa.JSON(), nullable=True),
        sa.Column("before", sa.JSON(), nullable=False),
        sa.Column("values", sa.JSON(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("sources", sa.JSON(), nullable=False),
        sa.Column("weights_digest", sa.String(length=64), nullable=True),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("lease_owner", sa.String(length=200), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["search_id"], ["searches.id"], name=op.f("fk_refinements_search_id_searches")),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name=op.f("fk_refinements_trial_id_trials")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_refinements")),
    )
    with op.batch_alter_table("refinements", schema=None) as batch_op:
        batch_op.create_index(op.f("ix_refinements_search_id"), ["search_id"])
        batch_op.create_index(op.f("ix_refinements_trial_id"), ["trial_id"])
        batch_op.create_index(op.f("ix_refinements_state"), ["state"])
