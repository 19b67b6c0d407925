"""One process at a time does what several ask for, and the others wait until it is there."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_POLL_S = 0.2


@contextmanager
def only_one(path: Path, wait: Callable[[], None]) -> Iterator[None]:
    """Hold a lock that the kernel frees when its process dies. `wait` is called again and again until it is free."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                wait()
                time.sleep(_POLL_S)
        yield
