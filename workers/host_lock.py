"""One host, one measurement at a time: training and scoring step aside while a latency is measured.

Three lock files per user. The `room` is shared by whoever works and held alone by whoever measures. The
`gate` is what one goes through to get in: a measurer holds it while it waits, so that nobody who leaves the
room comes back before it is done. `long` is held by who measures for minutes. The operating system frees them when
a process dies, however it dies.

The locks belong to the calling block. Taking one inside the other in one process would wait for itself.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class HostLockError(RuntimeError):
    """The lock file is not ours: another user, or a link, stands where it should be."""


class TrainingTurn:
    """Held by work that a measurement may interrupt. Call `yield_` between steps, often: it costs microseconds."""

    def __init__(self, gate: int, room: int) -> None:
        self._gate = gate
        self._room = room

    def enter(self) -> None:
        fcntl.flock(self._gate, fcntl.LOCK_SH)
        fcntl.flock(self._room, fcntl.LOCK_SH)
        fcntl.flock(self._gate, fcntl.LOCK_UN)

    def yield_(self) -> None:
        """Let a waiting measurement go first; returns at once when none waits."""
        try:
            fcntl.flock(self._gate, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(self._room, fcntl.LOCK_UN)
            self.enter()
        else:
            fcntl.flock(self._gate, fcntl.LOCK_UN)


@contextmanager
def training() -> Iterator[TrainingTurn]:
    """Work beside others of the kind, not beside a measurement.

    Raises:
        HostLockError: a lock file is not ours.
    """
    with _open_lock("gate") as gate, _open_lock("room") as room:
        turn = TrainingTurn(gate, room)
        turn.enter()
        yield turn


@contextmanager
def measuring() -> Iterator[None]:
    """Be alone on this host, among this user's Espalier processes. Waits until every turn has yielded.

    Raises:
        HostLockError: a lock file is not ours.
    """
    with _open_lock("gate") as gate, _open_lock("room") as room:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX)
        yield


class HostBusyError(RuntimeError):
    """Something else is being measured on this host."""


@contextmanager
def measuring_for_long() -> Iterator[None]:
    """Be the only one on this host who measures for minutes; each figure still takes `measuring`, so others get turns.

    Raises:
        HostBusyError: another does so, or a figure is being taken just now.
        HostLockError: a lock file is not ours.
    """
    with _open_lock("long") as long, _open_lock("gate") as gate:
        try:
            fcntl.flock(long, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(gate, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HostBusyError(
                "something else is being measured on this machine; two measurements would disturb each other: "
                "try again when it is done"
            ) from None
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield


@contextmanager
def _open_lock(name: str) -> Iterator[int]:
    """A descriptor of its own for each caller, since locks belong to descriptors; closing it frees the lock."""
    path = Path(tempfile.gettempdir()) / f"espalier-{os.getuid()}-{name}.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostLockError(f"cannot open {path}: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.getuid() or not stat.S_ISREG(status.st_mode):
            raise HostLockError(f"{path} is no plain file of this user")
        yield descriptor
    finally:
        os.close(descriptor)
