"""What the budget limits of a search come to, the sampler it took, and each trial's certificate."""

from __future__ import annotations

import sqlalchemy as sa

from alembic import op

revision = "b4c1f0a96e27"
down_revision = "d3f6a81c2e57"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("searches", schema=None) as batch_op:
        batch_op.add_column(sa.Column("budgets", sa.JSON(), nullable=False, server_default="[]"))
        batch_op.add_column(sa.Column("sampler", sa.JSON(), nullable=False, server_default="{}"))
    with op.batch_alter_table("trials", schema=None) as batch_op:
        batch_op.add_column(sa.Column("certificate", sa.JSON(), nullable=False, server_default="[]"))
