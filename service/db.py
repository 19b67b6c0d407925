"""The database connection: engines, transactions, migrations. Knows no table and no queue.

Writing transactions on SQLite begin with BEGIN IMMEDIATE: a transaction that reads first and writes later would
otherwise fail at once when another process wrote in between, instead of waiting for its turn.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

logger = logging.getLogger(__name__)

Made = TypeVar("Made")

BUSY_TIMEOUT_MS = 30_000
_READ_ONLY = "espalier_read_only"
_AFTER_COMMIT = "espalier_after_commit"


def make_engine(url: str) -> Engine:
    """Build an engine for an `sqlite:///` or `postgresql://` URL. Connects only when used.

    JSON columns refuse NaN and infinity on every database, since PostgreSQL would.
    """
    parsed = _with_driver(make_url(url))
    engine = create_engine(parsed, pool_pre_ping=True, json_serializer=partial(json.dumps, allow_nan=False))
    if engine.dialect.name == "sqlite":
        event.listen(engine, "do_connect", _make_folder)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


@contextmanager
def transaction(engine: Engine) -> Iterator[Session]:
    """Open one writing transaction: commits at the end, then does what `after_commit` was asked for.

    An exception rolls back, drops what was asked for, and goes on.
    """
    with open_session(engine) as session:
        yield session
        commit(session)


@contextmanager
def reading(engine: Engine) -> Iterator[Session]:
    """Open a transaction that only reads; nothing is committed."""
    with open_session(engine, read_only=True) as session:
        yield session


def open_session(engine: Engine, *, read_only: bool = False) -> Session:
    """Build a session whose rows stay usable after the commit. Closing it rolls back what is not committed."""
    if not read_only:
        return Session(engine, expire_on_commit=False)
    options: dict[str, Any] = {_READ_ONLY: True}
    if engine.dialect.name == "postgresql":
        options["postgresql_readonly"] = True
    return Session(engine.execution_options(**options), autoflush=False)


def is_read_only(session: Session) -> bool:
    """Whether it is one of `reading`."""
    return bool(session.get_bind().get_execution_options().get(_READ_ONLY, False))


def commit(session: Session) -> None:
    """Commit, then run the session's `after_commit` actions. An action that fails is logged: rows are the truth."""
    session.commit()
    for action in session.info.pop(_AFTER_COMMIT, []):
        try:
            action()
        except Exception:
            logger.exception("an action after a commit failed; the reaper repeats lost messages")


def after_commit(session: Session, action: Callable[[], None]) -> None:
    """Have `action` done once, only if the session commits."""
    session.info.setdefault(_AFTER_COMMIT, []).append(action)


def insert_once(engine: Engine, add: Callable[[Session], Made]) -> Made:
    """Do what adds a row in a transaction; once more when somebody else has added one just now that is in the way."""
    try:
        with transaction(engine) as session:
            return add(session)
    except IntegrityError:
        with transaction(engine) as session:
            return add(session)


def insert_if_new(session: Session, model: Any, values: dict[str, Any]) -> bool:
    """Insert a row unless one with its primary key is there; returns whether it was. Others may do it just now."""
    if session.get_bind().dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert
    else:
        from sqlalchemy.dialects.sqlite import insert  # type: ignore[assignment]
    key = list(model.__table__.primary_key.columns)
    statement = insert(model).values(**values).on_conflict_do_nothing(index_elements=key)
    return session.execute(statement.returning(*key)).one_or_none() is not None


def upgrade(url: str) -> None:
    """Bring the database to the newest schema. Safe when several processes do it at once; see `alembic/env.py`."""
    from alembic import command  # imported when needed: a serving process seldom does

    command.upgrade(alembic_config(url), "head")


def is_current(connection: Connection) -> bool:
    """Whether the schema is the newest one."""
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    script = ScriptDirectory.from_config(alembic_config(""))
    return set(MigrationContext.configure(connection).get_current_heads()) == set(script.get_heads())


def alembic_config(url: str) -> Any:
    """Build Alembic's configuration for a database, without reading alembic.ini."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.attributes["url"] = url
    return config


def migrations_folder() -> Path:
    """Where the migrations are: beside the packages in a checkout, under `share/` of an installation."""
    checkout = Path(__file__).resolve().parent.parent / "alembic"
    installed = Path(sys.prefix) / "share" / "espalier" / "alembic"
    for folder in (checkout, installed):
        if (folder / "versions").is_dir():
            return folder
    raise FileNotFoundError(f"no migrations in {checkout} or {installed}; install Espalier again")


def _with_driver(url: URL) -> URL:
    return url.set(drivername="postgresql+psycopg") if url.drivername in ("postgres", "postgresql") else url


def _make_folder(_dialect: Any, _record: Any, arguments: list[Any], _options: Any) -> None:
    Path(arguments[0]).parent.mkdir(parents=True, exist_ok=True)


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    # The driver's own transaction handling begins too late; `_begin_sqlite` does it.
    connection.isolation_level = None
    for pragma in (
        f"busy_timeout = {BUSY_TIMEOUT_MS}",
        "journal_mode = WAL",
        "synchronous = NORMAL",
        "foreign_keys = ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    is_read_only = connection.get_execution_options().get(_READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if is_read_only else "BEGIN IMMEDIATE")
