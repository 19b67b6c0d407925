"""The application as a whole: what it loads, what it costs, how it describes itself, its catalog and health."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from sqlalchemy import Engine

from search_spaces.datasets import DATASETS
from search_spaces.spec import Family, SamplerName
from service.app import create_app
from service.config import Settings
from tests.conftest import make_database
from tests.servers import free_port
from tests.service.builders import add_running_search, add_trial_rows, run_trial, success

HEAVY = {"torch", "optuna", "onnx", "onnxruntime", "workers", "scipy", "sklearn", "pandas"}
IDLE_LIMIT_BYTES = 150 * 2**20


def test_importing_the_application_loads_no_machine_learning() -> None:
    code = "import json, sys; import service.app; print(json.dumps(sorted(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert HEAVY & set(json.loads(result.stdout)) == set()


@pytest.fixture
def process(settings: Settings, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """The service as a process of its own, and a client of it."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "service.app:create_app", "--factory", "--port", str(port)]
    environment = {**os.environ, "ESPALIER_DATABASE_URL": settings.resolved_database_url}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            wait_for(client)
            yield process, client
    finally:
        process.kill()
        process.wait()


def submit(client: httpx.Client) -> str:
    example = Path(__file__).parents[2] / "examples" / "mobilenet_v1_fashion_mnist.yaml"
    headers = {"Content-Type": "application/yaml"}
    response = client.post("/v1/searches", content=example.read_bytes(), headers=headers)
    assert response.status_code == 202
    return str(response.json()["id"])


def test_idle_service_is_small(process: tuple[subprocess.Popen[bytes], httpx.Client]) -> None:
    """After it has checked a spec, too: that loads more."""
    program, client = process
    submit(client)
    # What is shared with other processes counts as well: the figure that an administrator would see.
    assert psutil.Process(program.pid).memory_info().rss < IDLE_LIMIT_BYTES


def test_signal_ends_open_streams_and_then_the_service(process: tuple[subprocess.Popen[bytes], httpx.Client]) -> None:
    program, client = process
    search_id = submit(client)
    with client.stream("GET", f"/v1/searches/{search_id}/events/stream") as response:
        lines = response.iter_lines()
        assert "event: state" in (next(lines) for _ in range(5))
        program.terminate()
        assert not any("event:" in line for line in lines)
    assert program.wait(10) in (0, -signal.SIGTERM)


def wait_for(client: httpx.Client) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            if client.get("/v1/health").status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_description_is_tidy(client: httpx.Client) -> None:
    description = client.get("/openapi.json").json()
    operations = [operation for path in description["paths"].values() for operation in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names) >= 18
    assert all(name.replace("_", "").isalpha() for name in names)
    for operation in operations:
        assert operation["summary"]
        assert operation["description"]
        assert "application/problem+json" in operation["responses"]["4XX"]["content"]
        assert "422" not in operation["responses"]
    assert {"Problem", "SearchSpec", "SearchBody"} <= description["components"]["schemas"].keys()


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("networks", set(Family)),
        ("datasets", set(DATASETS)),
        ("samplers", set(SamplerName)),
        ("devices", {"local-cpu"}),
    ],
)
def test_catalog_has_all_that_a_spec_may_name(client: httpx.Client, path: str, names: set[str]) -> None:
    items = client.get(f"/v1/{path}").json()["items"]
    assert {item["name"] for item in items} == {str(name) for name in names}
    assert all(item.get("description") or item["capabilities"]["description"] for item in items)


class TestHealth:
    def test_ready_service_tells_of_its_workers(self, client: httpx.Client, engine: Engine) -> None:
        search_id = add_running_search(engine)
        (trial,) = add_trial_rows(engine, search_id, 1)
        run_trial(engine, trial.id, success(0.9, 0.001))
        response = client.get("/v1/health")
        assert response.status_code == 200
        body = response.json()
        assert (body["status"], body["queue"], body["database"]) == ("ready", "folders", engine.dialect.name)
        assert [device["name"] for device in body["devices"]] == ["local-cpu"]
        assert body["last_sign_of_life"] >= body["devices"][0]["seen_at"]

    @pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
    def test_database_without_tables_is_not_ready(
        self, kind: str, request: pytest.FixtureRequest, tmp_path: Path
    ) -> None:
        url = f"sqlite:///{tmp_path / 'empty.db'}"
        if kind == "postgresql":
            url = make_database(request.getfixturevalue("postgres_server"), f"empty_{os.getpid()}")
        assert self.answer_with(url) == (503, "urn:espalier:problem:not-ready")

    def test_database_that_is_away_is_not_ready(self) -> None:
        url = "postgresql://nobody@127.0.0.1:9/nothing"
        assert self.answer_with(url) == (503, "urn:espalier:problem:database-unavailable")

    def answer_with(self, url: str) -> tuple[int, str]:
        """Status and problem of a service that has another database than the other tests."""

        async def ask() -> httpx.Response:
            app = create_app(Settings(database_url=url))
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
                response = await client.get("/v1/health")
            app.state.engine.dispose()
            return response

        response = asyncio.run(ask())
        return response.status_code, response.json()["type"]
