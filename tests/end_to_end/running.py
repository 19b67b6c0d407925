"""Starts the real programs for end-to-end tests, talks HTTP to them, and finds their processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.servers import free_port

ESPALIER = str(Path(sys.executable).with_name("espalier"))
FINAL = ("succeeded", "failed", "cancelled")


def digits_spec(**changes: Any) -> dict[str, Any]:
    """A real search that takes seconds: a quarter of MobileNet-V1 on 8x8 digits."""
    spec: dict[str, Any] = {
        "name": "digits",
        "network": {"family": "mobilenet_v1", "width": 0.25, "input": [1, 8, 8], "stem_stride": 1},
        "dataset": {"name": "digits"},
        "space": {
            "prune_ratio": {"low": 0.0, "high": 0.5, "step": 0.5},
            "precision": {"choices": ["fp32", "w8a8"], "scope": "block"},
        },
        "objectives": [
            {"metric": "accuracy", "direction": "maximize"},
            {"metric": "latency_s", "direction": "minimize", "device": "local-cpu"},
        ],
        "sampler": {"name": "random", "seed": 1},
        # Every design is tried: nothing is answered by what another test has found.
        "evaluation": {"calibration_images": 64, "score_images": 200, "finalists": {"top": 1}, "measure": "always"},
        # Of two jobs at once each has one of two cores: threads that wait for each other are slow on a busy machine.
        "budget": {"trials": 3, "concurrency": 2},
    }
    return spec | changes


@dataclass
class Service:
    """A running service, as its users see it."""

    url: str

    def await_ready(self) -> None:
        def answers() -> bool:
            try:
                return httpx.get(f"{self.url}/v1/health", timeout=5).status_code == 200
            except httpx.TransportError:
                return False

        wait_for(answers, 60, lambda: "the service does not become ready")

    def submit(self, spec: dict[str, Any]) -> str:
        answer = httpx.post(f"{self.url}/v1/searches", json=spec, timeout=30)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def get(self, path: str) -> dict[str, Any]:
        """Read, waiting through a restart of the service."""
        deadline = time.monotonic() + 30
        while True:
            try:
                answer = httpx.get(f"{self.url}/v1/{path}", timeout=10)
                assert answer.status_code == 200, answer.text
                return dict(answer.json())
            except httpx.TransportError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def search(self, search_id: str) -> dict[str, Any]:
        return self.get(f"searches/{search_id}")

    def trials(self, search_id: str) -> list[dict[str, Any]]:
        return list(self.get(f"searches/{search_id}/trials?page_size=200")["items"])

    def change(self, search_id: str, verb: str) -> None:
        answer = httpx.post(f"{self.url}/v1/searches/{search_id}/{verb}", timeout=30)
        assert answer.status_code in (200, 202), answer.text

    def await_end(self, search_id: str, limit_s: float = 120) -> dict[str, Any]:
        return wait_for(lambda: self._ended(search_id), limit_s, lambda: str(self.search(search_id)))

    def await_running_trial(self, search_id: str, limit_s: float = 120) -> None:
        def running() -> bool:
            state = self.search(search_id)["state"]
            assert state not in FINAL, state
            return any(trial["state"] == "running" for trial in self.trials(search_id))

        wait_for(running, limit_s, lambda: str(self.search(search_id)))

    def _ended(self, search_id: str) -> dict[str, Any] | None:
        search = self.search(search_id)
        return search if search["state"] in FINAL else None


@dataclass
class Embedded(Service):
    """What `espalier up` runs, from outside."""

    home: Path
    port: int
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        places = {"ESPALIER_HOME": str(self.home), "ESPALIER_PORT": str(self.port)}
        environment = os.environ | places | self.environment
        with (self.home.parent / "up.log").open("ab") as log:
            self.process = subprocess.Popen([ESPALIER, "up"], env=environment, stdout=log, stderr=log)
        wait_for(self._answers, 60, lambda: (self.home.parent / "up.log").read_text())

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait(timeout=30)

    def kill(self, part: str) -> None:
        """kill -9 a process by what its command line holds; `supervisor` is the parent of all."""
        assert self.process is not None
        pid = self.process.pid if part == "supervisor" else self.find(part)
        os.kill(pid, signal.SIGKILL)
        if part == "supervisor":
            self.process.wait()

    def find(self, part: str) -> int:
        return wait_for(lambda: self._find(part), 30, lambda: f"no process {part}")

    def _find(self, part: str) -> int | None:
        assert self.process is not None
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if part in " ".join(child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE:
                    return int(child.pid)
            except psutil.NoSuchProcess:
                continue
        return None

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.home.parent / "up.log").read_text()
        try:
            return httpx.get(f"{self.url}/v1/health", timeout=5).status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def running_embedded(folder: Path, environment: dict[str, str] | None = None) -> Iterator[Embedded]:
    port = free_port()
    home = folder / "home"
    home.mkdir(parents=True)
    embedded = Embedded(f"http://127.0.0.1:{port}", home, port, environment or {})
    embedded.start()
    try:
        yield embedded
    finally:
        embedded.stop()


@contextmanager
def running_program(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        process = subprocess.Popen(command, env=os.environ | environment, stdout=output, stderr=output)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=30)


def wait_for(look: Callable[[], Any], limit_s: float, explain: Callable[[], str]) -> Any:
    deadline = time.monotonic() + limit_s
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, explain()
        time.sleep(0.1)


def assert_complete(service: Service, search_id: str, budget: int) -> None:
    """Nothing is lost, nothing is there twice."""
    search, trials = service.search(search_id), service.trials(search_id)
    assert [trial["number"] for trial in trials] == list(range(len(trials)))
    searched = [trial for trial in trials if not trial["baseline"]]
    assert len(searched) == budget
    assert len({str(trial["design"]) for trial in trials}) == len(trials)
    assert all(trial["state"] in ("succeeded", "infeasible", "failed") for trial in trials)
    assert search["progress"]["done"] == search["progress"]["total"] == len(trials)
    assert search["progress"]["running"] == 0
