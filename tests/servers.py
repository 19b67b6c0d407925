"""Real PostgreSQL and Redis for tests: started from the installed binaries on free loopback ports, gone afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import redis

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0


class MissingProgramError(Exception):
    """A program that the tests need is not installed."""

    def __init__(self, program: str, package: str) -> None:
        super().__init__(f"{program} is not installed: run `apt-get install {package}`, or `make test` as root")


@contextmanager
def running_postgres() -> Iterator[str]:
    """Run a server with an empty database; yields its URL, without the name of a database at the end."""
    initdb, postgres = find_postgres("initdb"), find_postgres("postgres")
    account = _account_for_postgres()
    with tempfile.TemporaryDirectory(prefix="espalier-pg-", ignore_cleanup_errors=True) as folder:
        if account is not None:
            os.chown(folder, account.pw_uid, account.pw_gid)
        data, port = Path(folder) / "data", free_port()
        options = ["--auth=trust", "--username=espalier", "--encoding=UTF8", "--locale=C", "--no-sync"]
        _check(subprocess.run([initdb, "-D", data, *options], capture_output=True, cwd=folder, **_as_user(account)))
        command = [postgres, "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", folder, "-F"]
        url = f"postgresql://espalier@127.0.0.1:{port}"
        with _process(command, folder, account):
            _wait_until(lambda: psycopg.connect(f"{url}/postgres", connect_timeout=2).close(), psycopg.OperationalError)
            yield url


@contextmanager
def running_redis() -> Iterator[str]:
    """Run an empty server that keeps nothing; yields its URL."""
    program = shutil.which("redis-server")
    if program is None:
        raise MissingProgramError("redis-server", "redis-server")
    with tempfile.TemporaryDirectory(prefix="espalier-redis-") as folder:
        port = free_port()
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        with _process(command, folder, None):
            client = redis.Redis(port=port)
            _wait_until(client.ping, redis.ConnectionError)
            client.close()
            yield f"redis://127.0.0.1:{port}/0"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _process(command: list[object], folder: str, account: pwd.struct_passwd | None) -> Iterator[None]:
    """Run a child until the end of the block. Nothing that it has is worth an orderly shutdown."""
    with (Path(folder) / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(part) for part in command], cwd=folder, stdout=log, stderr=log, **_as_user(account)
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGQUIT)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def find_postgres(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), key=lambda path: int(path.parts[4]))
        if not installed:
            raise MissingProgramError(program, "postgresql")
        found = str(installed[-1])
    return found


def _account_for_postgres() -> pwd.struct_passwd | None:
    """PostgreSQL refuses to run as root; its package makes an account for it."""
    return pwd.getpwnam("postgres") if os.geteuid() == 0 else None


def _as_user(account: pwd.struct_passwd | None) -> dict[str, object]:
    return {} if account is None else {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _check(result: subprocess.CompletedProcess[bytes]) -> None:
    if result.returncode:
        raise RuntimeError(result.stderr.decode(errors="replace"))


def _wait_until(attempt: Callable[[], object], not_yet: type[Exception]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            attempt()
            return
        except not_yet:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
