"""The whole job once, for a newcomer to watch: a service of its own, one real search, one exported file.

Everything goes through HTTP, as any other client would do it. Nothing is canned: what the search finds is printed,
whether it beats the baseline or not.
"""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from rich.console import Console

from service import terminal
from service.client import Client, Json, connect, service_url
from service.config import Settings
from service.lifeline import die_with_parent, exit_unless_child_of
from service.states import SearchState
from service.units import show_seconds
from service.watch import watch_search

READY_WITHIN_S = 120.0
STOP_WITHIN_S = 20.0
POLL_S = 0.2
LOG_LINES = 20


class DemoFailedError(Exception):
    """The demo cannot go on; the message says why, for people."""


def run_demo(spec: Path, console: Console, settings: Settings) -> int:
    """Returns the exit status: 0 only when the search succeeded and the exported file is what was reported."""
    began = time.monotonic()
    try:
        with _running_service(console, settings) as client:
            search = _search(client, spec, console)
            path = _export(client, search, console, settings.home)
    except DemoFailedError as error:
        console.print(str(error), style="red", markup=False)
        return 1
    console.print(f"\nThe file is {path}. All of this took {show_seconds(time.monotonic() - began)}.", soft_wrap=True)
    console.print(f"To look at the search in a browser: make up, then {service_url(settings)}/searches/{search['id']}")
    return 0


@contextmanager
def _running_service(console: Console, settings: Settings) -> Iterator[Client]:
    """The service that is already there; else one of our own, on a free port, that ends with the demo."""
    with connect(service_url(settings)) as client:
        if client.is_ready():
            console.print(f"Using the service at {service_url(settings)}.")
            yield client
            return
    own = settings.model_copy(update={"host": "127.0.0.1", "port": _free_port()})
    console.print(f"Starting the service; what it keeps is in {settings.home} ...", soft_wrap=True)
    with _process(own) as (process, log), connect(service_url(own)) as client:
        _await_ready(client, process, log)
        yield client


@contextmanager
def _process(settings: Settings) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    settings.home.mkdir(parents=True, exist_ok=True)
    log = settings.home / "demo.log"
    environment = os.environ | {"ESPALIER_HOME": str(settings.home), "ESPALIER_HOST": settings.host}
    command = [str(Path(sys.executable).with_name("espalier")), "up", "--port", str(settings.port)]
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=partial(_tie_to, os.getpid()),  # nothing else runs in this process yet
        )
    try:
        yield process, log
    finally:
        process.terminate()
        try:
            process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()


def _tie_to(parent: int) -> None:
    """Whatever ends the demo ends its service too."""
    die_with_parent()
    exit_unless_child_of(parent)


def _await_ready(client: Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while not client.is_ready():
        if process.poll() is not None or time.monotonic() > deadline:
            last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
            raise DemoFailedError("\n".join(["The service did not start. It said last:", *last]))
        time.sleep(POLL_S)


def _search(client: Client, spec: Path, console: Console) -> Json:
    submitted = client.submit(spec.read_bytes(), yaml=True)
    console.print(f"Submitted {spec.name} as search {submitted['id'][:8]}.", highlight=False)
    search = watch_search(client, submitted["id"], console)
    if search["state"] != SearchState.SUCCEEDED:
        console.print(terminal.search_summary(search))
        raise DemoFailedError(f"The search ended as {search['state']}.")
    console.print()
    console.print(terminal.result_view(search, list(client.trials(search["id"])), client.front(search["id"])["items"]))
    return search


def _export(client: Client, search: Json, console: Console, home: Path) -> Path:
    console.print("\nExporting the knee of the front as ONNX ...")
    export = client.await_export(client.request_export(search["id"], trial=None))
    path = client.download(export, home)[0]
    if hashlib.sha256(path.read_bytes()).hexdigest() != export["artifact"]["digest"]:
        raise DemoFailedError(f"{path} is not the file that was vouched for: its digest differs.")
    console.print(terminal.report_table(export))
    return path


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
