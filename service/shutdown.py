"""Lets streams and long polls end when the server is told to stop, since it waits for them before anything else."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def noticing_signals(stopping: threading.Event) -> Iterator[None]:
    """Raise the flag on SIGINT and SIGTERM, besides what the server does then. Off the main thread: nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        signal.signal(number, _chain(stopping, handler))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _chain(stopping: threading.Event, then: Any) -> Callable[[int, FrameType | None], None]:
    def handle(number: int, frame: FrameType | None) -> None:
        stopping.set()
        if callable(then):
            then(number, frame)
        elif then == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    return handle
