"""What the service costs before it does anything: the time its application takes to import, and its memory when idle.

Memory is the process's resident set, parts shared with others included, after health was asked for, and again after a
spec was submitted, which loads what checks specs and sends messages. Prints a table and writes
benchmarks/results/service.json.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil
from rich.console import Console
from rich.table import Table

from service.db import make_engine, transaction, upgrade
from service.devices.actions import announce, this_process
from workers.announce import local_capabilities

ROOT = Path(__file__).parent.parent
SPEC = ROOT / "examples" / "mobilenet_v1_fashion_mnist.yaml"
RESULTS = Path(__file__).parent / "results" / "service.json"
IMPORTS = 5
IMPORT = "import time; began = time.perf_counter(); import service.app; print(time.perf_counter() - began)"
LEARNING = "import sys, service.app; print(*sorted({'torch', 'optuna', 'onnx', 'onnxruntime'} & set(sys.modules)))"
SETTLE_S = 2.0
LIMIT_S = 30.0


def main() -> None:
    load = round(os.getloadavg()[0], 1)  # of what else the machine does: it adds to the times
    # Compiled modules are kept, as in any installation; the first import only sees to that.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    _, *imports_s = [float(run_python(IMPORT)) for _ in range(IMPORTS + 1)]
    row = {
        "import_s": round(median(imports_s), 3),
        "import_max_s": round(max(imports_s), 3),
        "learning_libraries_imported": run_python(LEARNING).split(),
        **measure_memory(),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    protocol: dict[str, Any] = {"imports": IMPORTS, "python": sys.version.split()[0], "cores": os.cpu_count()}
    protocol["load_before"] = load
    RESULTS.write_text(json.dumps({"protocol": protocol, "rows": [row]}, indent=2) + "\n")
    show(row)


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, text=True).stdout


def measure_memory() -> dict[str, float]:
    """Resident MiB of a service on the embedded default: idle, and after one accepted spec."""
    with running_service() as (process, client):
        await_health(client)
        time.sleep(SETTLE_S)
        idle = process.memory_info().rss
        headers = {"Content-Type": "application/yaml"}
        client.post("/v1/searches", content=SPEC.read_bytes(), headers=headers).raise_for_status()
        used = process.memory_info().rss
    return {"idle_mib": round(idle / 2**20, 1), "after_a_submission_mib": round(used / 2**20, 1)}


@contextmanager
def running_service() -> Iterator[tuple[psutil.Process, httpx.Client]]:
    with tempfile.TemporaryDirectory(prefix="espalier-service-") as home:
        environment = {**os.environ, "ESPALIER_HOME": home}
        for name in ("ESPALIER_DATABASE_URL", "ESPALIER_BROKER_URL"):
            environment.pop(name, None)
        prepare_database(f"sqlite:///{home}/espalier.db")
        port = free_port()
        command = [sys.executable, "-m", "uvicorn", "service.app:create_app", "--factory", "--log-level", "warning"]
        server = subprocess.Popen([*command, "--port", str(port)], cwd=ROOT, env=environment)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
                yield psutil.Process(server.pid), client
        finally:
            server.terminate()
            server.wait()


def prepare_database(url: str) -> None:
    upgrade(url)
    engine = make_engine(url)
    with transaction(engine) as session:
        for capabilities in local_capabilities():
            announce(session, capabilities, this_process())
    engine.dispose()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def await_health(client: httpx.Client) -> None:
    deadline = time.monotonic() + LIMIT_S
    while True:
        try:
            if client.get("/v1/health").is_success:
                return
        except httpx.TransportError:
            pass
        if time.monotonic() > deadline:
            raise TimeoutError(f"the service was not ready within {LIMIT_S:.0f} s")
        time.sleep(0.05)


def show(row: dict[str, Any]) -> None:
    table = Table(title="The service at rest")
    for name in row:
        table.add_column(name, justify="right")
    table.add_row(*(", ".join(value) if isinstance(value, list) else str(value) for value in row.values()))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
