"""Databases and brokers for all tests: SQLite from a migrated template, PostgreSQL and Redis from real servers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine

from service.config import Settings, get_settings
from service.db import make_engine, upgrade
from service.models import Row
from service.queue import get_celery
from tests.servers import MissingProgramError, running_postgres, running_redis

SQLITE, POSTGRESQL = "sqlite", "postgresql"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a running server, without a database's name."""
    try:
        with running_postgres() as url:
            yield url
    except MissingProgramError as error:
        pytest.fail(str(error))


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    try:
        with running_redis() as url:
            yield url
    except MissingProgramError as error:
        pytest.fail(str(error))


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database without rows, to be copied."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres_database(postgres_server: str) -> str:
    """The URL of a migrated database that tests empty before they use it: making one each would take longer."""
    url = make_database(postgres_server, "espalier")
    upgrade(url)
    return url


@pytest.fixture(params=[SQLITE, POSTGRESQL])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A migrated database without rows, on each kind of server in turn."""
    if request.param == SQLITE:
        path = tmp_path / "espalier.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        return f"sqlite:///{path}"
    url: str = request.getfixturevalue("postgres_database")
    with psycopg.connect(url) as connection:
        connection.execute(f"TRUNCATE {', '.join(Row.metadata.tables)} RESTART IDENTITY CASCADE")
    return url


@pytest.fixture
def settings(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings that every part of this process reads: the database, and an embedded broker in a folder of its own."""
    monkeypatch.setenv("ESPALIER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ESPALIER_DATABASE_URL", database_url)
    monkeypatch.delenv("ESPALIER_BROKER_URL", raising=False)
    get_settings.cache_clear()
    get_celery.cache_clear()
    yield get_settings()
    get_celery().close()
    get_settings.cache_clear()
    get_celery.cache_clear()


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    engine = make_engine(settings.resolved_database_url)
    yield engine
    engine.dispose()


def make_database(server: str, name: str) -> str:
    """Make an empty database; returns its URL."""
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return f"{server}/{name}"
