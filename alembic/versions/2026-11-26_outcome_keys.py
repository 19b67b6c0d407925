"""Keys of outcomes, where trials have theirs from, and searches that are extended."""

from __future__ import annotations

import sqlalchemy as sa

from alembic import op

revision = "d3f6a81c2e57"
down_revision = "e07b5a2c94d1"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("searches", schema=None) as batch_op:
        batch_op.add_column(sa.Column("extensions", sa.JSON(), nullable=False, server_default="[]"))
        batch_op.add_column(sa.Column("extended_at", sa.DateTime(timezone=True), nullable=True))
    with op.batch_alter_table("trials", schema=None) as batch_op:
        batch_op.add_column(sa.Column("outcome_key", sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column("obtained", sa.String(length=20), nullable=False, server_default="evaluated"))
        batch_op.add_column(sa.Column("origin", sa.JSON(), nullable=True))
        batch_op.create_index(op.f("ix_trials_outcome_key"), ["outcome_key"])
        batch_op.drop_index("ix_trials_search_id_state")
        batch_op.create_index(
            "ix_trials_search_id_state", ["search_id", "state", "baseline", "obtained", "published_at"]
        )
