"""A running service: the real server on a loopback port, on each kind of database in turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import httpx
import pytest
import uvicorn
from sqlalchemy import Engine

from service.app import create_app
from service.config import Settings
from tests.servers import free_port
from tests.service.builders import add_device


@pytest.fixture
def bare_client(settings: Settings) -> Iterator[httpx.Client]:
    """A client of a running service that knows no device."""
    server = uvicorn.Server(uvicorn.Config(create_app(settings), port=free_port(), log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    with httpx.Client(base_url=f"http://127.0.0.1:{server.config.port}", timeout=30) as client:
        yield client
    server.config.app.state.stopping.set()
    server.should_exit = True
    thread.join(timeout=10)
    assert not thread.is_alive()


@pytest.fixture
def client(bare_client: httpx.Client, engine: Engine) -> httpx.Client:
    """A client of a running service that knows the local processor."""
    add_device(engine)
    return bare_client
