"""Ties a child process to its parent: where the kernel can, a child is killed when its parent dies.

Knows nothing of what the processes do. Where the kernel cannot (anything but Linux) nothing happens, and a
process that reads requests from its parent still ends when they do.
"""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent() -> None:
    """Ask the kernel to kill the calling process as soon as the thread that started it is gone."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def exit_unless_child_of(parent: int) -> None:
    """Leave at once if the parent died before `die_with_parent` was called."""
    if os.getppid() != parent:
        os._exit(1)
