"""What stopped trials would probably have come to: samplers learn from that, not from scores of cheap steps."""

from __future__ import annotations

import sqlalchemy as sa

from alembic import op

revision = "c92e7a4d1b38"
down_revision = "b83d5f1c6a07"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("trials", schema=None) as batch_op:
        batch_op.add_column(sa.Column("expected", sa.JSON(), nullable=True))
