"""The database: migrations from every released schema, transactions, messages after the commit."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, insert, select, text, update
from sqlalchemy.exc import IntegrityError, OperationalError, StatementError

from service.config import Settings
from service.db import after_commit, is_current, make_engine, reading, transaction, upgrade
from service.models import Device, Row, Search
from service.queue import TaskName, send_after_commit
from tests.conftest import make_database
from tests.migrations.rows import check_rows
from tests.service.builders import add_running_search, waiting_messages

ASSETS = Path(__file__).parents[1] / "migrations" / "assets"
ALL_KINDS = ("sqlite", "postgresql")


def empty_database(kind: str, name: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if kind == "sqlite":
        return f"sqlite:///{tmp_path / 'new' / name}.db"
    return make_database(request.getfixturevalue("postgres_server"), f"{name}_{os.getpid()}")


def restore(kind: str, url: str, dump: str) -> None:
    if kind == "sqlite":
        path = Path(url.removeprefix("sqlite:///"))
        path.parent.mkdir()
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(dump)
    else:
        with psycopg.connect(url) as connection:
            connection.execute(dump)


class TestMigrations:
    def test_models_say_what_the_migrations_make(self, engine: Engine) -> None:
        with engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), Row.metadata) == []
            assert is_current(connection)

    @pytest.mark.parametrize("kind", ALL_KINDS)
    def test_processes_that_upgrade_at_once_do_not_disturb_each_other(
        self, kind: str, request: pytest.FixtureRequest, tmp_path: Path
    ) -> None:
        url = empty_database(kind, "contended", request, tmp_path)
        command = [sys.executable, "-c", f"from service.db import upgrade; upgrade({url!r})"]
        with ThreadPoolExecutor(3) as pool:
            results = list(pool.map(lambda _: subprocess.run(command, capture_output=True, check=False), range(3)))
        assert [result.stderr.decode() for result in results if result.returncode] == []
        engine = make_engine(url)
        with engine.connect() as connection:
            assert is_current(connection)
        engine.dispose()

    @pytest.mark.parametrize("asset", sorted(ASSETS.glob("*.sql")), ids=lambda path: path.name)
    def test_kept_database_of_a_release_is_upgraded_with_its_rows(
        self, asset: Path, request: pytest.FixtureRequest, tmp_path: Path
    ) -> None:
        kind = asset.name.partition(".")[0]
        url = empty_database(kind, f"kept_{asset.stem.replace('.', '_').replace('-', '_')}", request, tmp_path)
        restore(kind, url, asset.read_text())
        upgrade(url)
        upgrade(url)
        engine = make_engine(url)
        with reading(engine) as session:
            assert is_current(session.connection())
            assert compare_metadata(MigrationContext.configure(session.connection()), Row.metadata) == []
            check_rows(session)
        engine.dispose()

    def test_database_without_tables_is_not_current(self, tmp_path: Path) -> None:
        engine = make_engine(f"sqlite:///{tmp_path / 'empty.db'}")
        with engine.connect() as connection:
            assert not is_current(connection)
        engine.dispose()


class TestTransactions:
    def test_failure_leaves_neither_row_nor_message(self, engine: Engine, settings: Settings) -> None:
        search_id = add_running_search(engine)
        sent = waiting_messages(settings)

        def change_and_fail() -> None:
            with transaction(engine) as session:
                session.execute(update(Search).values(name="changed"))
                send_after_commit(session, TaskName.PLAN, search_id)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            change_and_fail()
        with reading(engine) as session:
            assert session.get_one(Search, search_id).name == "mobilenet-fashion-cpu"
        assert waiting_messages(settings) == sent

    def test_broker_that_is_away_loses_no_row(
        self, engine: Engine, settings: Settings, caplog: pytest.LogCaptureFixture
    ) -> None:
        shutil.rmtree(settings.broker_folder, ignore_errors=True)
        with caplog.at_level(logging.CRITICAL, logger="service.db"):
            search_id = add_running_search(engine)
            shutil.rmtree(settings.broker_folder, ignore_errors=True)
            with transaction(engine) as session:
                session.execute(update(Search).values(name="changed"))
                send_after_commit(session, TaskName.PLAN, search_id)
        with reading(engine) as session:
            assert session.get_one(Search, search_id).name == "changed"

    def test_actions_run_in_order_and_one_that_fails_stops_no_other(self, engine: Engine) -> None:
        done: list[str] = []

        def fail() -> None:
            raise OSError("no broker")

        with transaction(engine) as session:
            after_commit(session, lambda: done.append("first"))
            after_commit(session, fail)
            after_commit(session, lambda: done.append("last"))
            assert done == []
        assert done == ["first", "last"]

    def test_reader_that_turns_writer_waits_instead_of_failing(self, engine: Engine) -> None:
        """With a deferred BEGIN, SQLite refuses all but the first of these at once."""
        search_id = add_running_search(engine)

        def read_then_write(_: int) -> None:
            with transaction(engine) as session:
                search = session.scalars(select(Search).where(Search.id == search_id).with_for_update()).one()
                search.finished_count += 1

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(read_then_write, range(40)))
        with reading(engine) as session:
            assert session.get_one(Search, search_id).finished_count == 40

    def test_readers_do_not_wait_for_a_writer(self, engine: Engine) -> None:
        search_id = add_running_search(engine)
        with transaction(engine) as writing:
            writing.execute(update(Search).values(name="changed"))
            with reading(engine) as session:
                assert session.get_one(Search, search_id).name == "mobilenet-fashion-cpu"

    def test_foreign_keys_are_kept(self, engine: Engine) -> None:
        with pytest.raises(IntegrityError), transaction(engine) as session:
            session.execute(text("INSERT INTO events VALUES ('nothing', 1, 'note', '{}', '2026-01-01')"))

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_json_has_finite_numbers_only(self, engine: Engine, value: float) -> None:
        row = {"name": "x", "capabilities": {"value": value}}
        with pytest.raises((StatementError, ValueError), match="not JSON compliant"), transaction(engine) as session:
            session.execute(insert(Device), [row])


def test_sqlite_is_set_up_for_several_processes(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'deep' / 'er' / 'x.db'}")
    with engine.connect() as connection:
        pragmas = [connection.execute(text(f"PRAGMA {name}")).scalar() for name in ("journal_mode", "foreign_keys")]
    assert pragmas == ["wal", 1]
    engine.dispose()


def test_database_that_is_away_is_told_as_such(tmp_path: Path) -> None:
    engine = make_engine("postgresql://nobody@127.0.0.1:9/nothing")
    with pytest.raises(OperationalError), engine.connect():
        pass
    engine.dispose()
