"""Where a device is, what it is by its common name, and who announced it last."""

from __future__ import annotations

import sqlalchemy as sa

from alembic import op

revision = "c4d07e5b91a2"
down_revision = "5e4c1f0b7d92"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("devices", schema=None) as batch_op:
        batch_op.add_column(sa.Column("kind", sa.String(length=100), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("host", sa.String(length=200), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("owner", sa.String(length=200), nullable=True))
    op.execute("UPDATE devices SET kind = name")
