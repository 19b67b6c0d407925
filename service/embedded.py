"""What `espalier up` runs: the service and its workers as child processes of one supervisor, without any server.

The supervisor holds no state. A child that dies is started again; if the supervisor itself is killed, the kernel
kills its children, and the next `espalier up` on the same home goes on with every search from the database.
Workers are started by their command, never imported.
"""

from __future__ import annotations

import fcntl
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import typer
from sqlalchemy import Engine, select
from sqlalchemy.exc import SQLAlchemyError

from service.config import Settings
from service.db import make_engine, reading, transaction, upgrade
from service.leases import expire_leases, owner_name
from service.lifeline import die_with_parent, exit_unless_child_of
from service.models import Device, utc_now

_log = logging.getLogger(__name__)

POLL_S = 0.1
ANNOUNCE_WAIT_S = 60.0
STOP_WAIT_S = 10.0
_FIRST_BACKOFF_S, _LAST_BACKOFF_S = 0.2, 10.0
_STEADY_AFTER_S = 30.0  # a child that lived so long starts again at once


@dataclass
class Child:
    """One supervised process: its command, and when it may be started again after a death."""

    name: str
    command: Sequence[str]
    descriptors: tuple[int, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    backoff_s: float = _FIRST_BACKOFF_S
    start_at: float = 0.0

    def start(self, environment: dict[str, str]) -> None:
        # The supervisor has one thread, so a function may run between fork and exec.
        self.process = subprocess.Popen(
            self.command,
            env=environment,
            pass_fds=self.descriptors,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in the terminal reaches the supervisor alone
            preexec_fn=partial(_tie_to, os.getpid()),
        )
        self.started_at = time.monotonic()

    def bury(self) -> int | None:
        """If the process has died, say when it may be started again, and return its id."""
        if self.process is None or self.process.poll() is None:
            return None
        now = time.monotonic()
        is_steady = now - self.started_at > _STEADY_AFTER_S
        self.backoff_s = _FIRST_BACKOFF_S if is_steady else min(2 * self.backoff_s, _LAST_BACKOFF_S)
        self.start_at = now + self.backoff_s
        _log.warning("%s ended with status %s and is started again", self.name, self.process.returncode)
        pid, self.process = self.process.pid, None
        return pid


def run(settings: Settings, say: Callable[[str], None] = typer.echo) -> int:
    """Serve until SIGINT or SIGTERM. Returns the exit status."""
    settings.home.mkdir(parents=True, exist_ok=True)
    with _only_one(settings.home) as is_first:
        if not is_first:
            say(f"Espalier already runs on {settings.home}; give another one its own --home.")
            return 1
        try:
            listener = socket.create_server((settings.host, settings.port))
        except OSError as error:
            say(f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}. Choose another --port.")
            return 1
        with listener:
            # Connections inherit it. uvicorn, given a descriptor, does not set it: each answer would wait 40 ms for
            # the caller's delayed acknowledgement.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _supervise(settings, listener, say)
    return 0


def _supervise(settings: Settings, listener: socket.socket, say: Callable[[str], None]) -> None:
    stop = _stop_on_signals()
    upgrade(settings.resolved_database_url)
    engine = make_engine(settings.resolved_database_url)
    if settings.database_url is None:  # then nobody else can work on this home, whose lock is ours
        with transaction(engine) as session:
            expire_leases(session, None)
    environment = os.environ | _as_environment(settings)
    began = utc_now()
    children = [
        Child("the control worker", _worker_command("control", 2)),
        Child("the trial worker", _worker_command("trials", 1)),
    ]
    try:
        # The service answers once a device is known, so that the first search need not wait for it.
        _keep_until(
            lambda: _announced_since(engine, began), children, engine, environment, stop, limit_s=ANNOUNCE_WAIT_S
        )
        children.append(Child("the service", _service_command(listener), descriptors=(listener.fileno(),)))
        if not stop.is_set():
            host, port = listener.getsockname()[:2]
            say(f"Espalier is at http://{host}:{port} (home: {settings.home}). Ctrl-C stops it.")
        _keep_until(stop.is_set, children, engine, environment, stop)
    finally:
        _end(children)
        engine.dispose()


def _keep_until(
    is_enough: Callable[[], bool],
    children: list[Child],
    engine: Engine,
    environment: dict[str, str],
    stop: threading.Event,
    limit_s: float = math.inf,
) -> None:
    began = time.monotonic()
    while not stop.is_set() and not is_enough():
        if time.monotonic() - began > limit_s:
            _log.warning("no worker has announced a device yet; searches wait for one")
            return
        for child in children:
            _keep_alive(child, engine, environment)
        stop.wait(POLL_S)


def _keep_alive(child: Child, engine: Engine, environment: dict[str, str]) -> None:
    dead = child.bury()
    if dead is not None:
        # The parent knows for sure: nobody need wait until the leases end by themselves, which they do anyway.
        try:
            with transaction(engine) as session:
                expire_leases(session, owner_name(dead))
        except SQLAlchemyError:
            _log.warning("cannot free what %s held", child.name, exc_info=True)
    if child.process is None and time.monotonic() >= child.start_at:
        child.start(environment)


def _announced_since(engine: Engine, began: datetime) -> bool:
    with reading(engine) as session:
        return session.scalar(select(Device.name).where(Device.seen_at >= began).limit(1)) is not None


def _service_command(listener: socket.socket) -> list[str]:
    """The socket belongs to the supervisor, so that callers wait, and are not refused, while the service restarts."""
    options = ["--fd", str(listener.fileno()), "--log-level", "warning", "--timeout-graceful-shutdown", "3"]
    return [sys.executable, "-m", "uvicorn", "service.app:create_app", "--factory", *options]


def _worker_command(queue: str, concurrency: int) -> list[str]:
    command = str(Path(sys.executable).with_name("espalier"))
    return [command, "worker", "--queues", queue, "--concurrency", str(concurrency)]


def _as_environment(settings: Settings) -> dict[str, str]:
    values = settings.model_dump(exclude_none=True)
    return {f"ESPALIER_{name.upper()}": str(value) for name, value in values.items()}


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _end(children: Sequence[Child]) -> None:
    """Ask all children to end, and end those that do not."""
    live = [child.process for child in children if child.process is not None]
    for process in live:
        process.terminate()
    deadline = time.monotonic() + STOP_WAIT_S
    for process in live:
        try:
            process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _tie_to(parent: int) -> None:
    die_with_parent()
    exit_unless_child_of(parent)


@contextmanager
def _only_one(home: Path) -> Iterator[bool]:
    """Hold the home's lock while supervising it; yields whether it could be had. The kernel frees it on any death."""
    with open(home / "supervisor.lock", "a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
