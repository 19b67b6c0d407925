"""Runs the migrations, one process at a time.

SQLite: the transaction begins with BEGIN IMMEDIATE, so a second process waits, then finds nothing to do.
PostgreSQL: an advisory lock does the same.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, TypeDecorator, text

from alembic import context
from service.config import get_settings
from service.db import make_engine
from service.models import Row

ADVISORY_LOCK = 7_305_110


def run() -> None:
    url = context.config.attributes.get("url") or get_settings().resolved_database_url
    engine = make_engine(url)
    try:
        with engine.connect() as connection:
            if connection.dialect.name == "sqlite":
                _forget_foreign_keys(connection)
            with connection.begin():
                _migrate(connection)
            if connection.dialect.name == "sqlite":
                # The pragma would stay with the connection; this one is not used again.
                connection.invalidate()
    finally:
        engine.dispose()


def _forget_foreign_keys(connection: Connection) -> None:
    """Let a table be dropped and made anew (SQLite cannot alter one) without taking the rows that point to it along.

    Has no effect inside a transaction, so it goes by SQLAlchemy's.
    """
    driver = connection.connection.driver_connection
    assert driver is not None
    driver.execute("PRAGMA foreign_keys = OFF")


def _migrate(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
    context.configure(
        connection=connection,
        target_metadata=Row.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        render_item=_render_item,
    )
    with context.begin_transaction():
        context.run_migrations()
    if connection.dialect.name == "sqlite":
        broken = connection.execute(text("PRAGMA foreign_key_check")).all()
        if broken:
            raise RuntimeError(f"the migration would leave rows that point nowhere: {broken[:5]}")


def _render_item(kind: str, item: Any, _context: Any) -> str | bool:
    """Write our own column types as what they are in the database: a migration must outlive our classes."""
    if kind == "type" and isinstance(item, TypeDecorator):
        return f"sa.{item.impl!r}"
    return False


if context.is_offline_mode():
    raise SystemExit("migrations run online only: they lock the database")
run()
