"""Gives back to the system what has been freed: the C library keeps it, and an import's steps would add up."""

from __future__ import annotations

import ctypes
import ctypes.util
from functools import lru_cache


def return_freed_memory() -> None:
    """Does nothing where the C library is not GNU's."""
    trim = getattr(_c_library(), "malloc_trim", None)
    if trim is not None:
        trim(0)


@lru_cache(maxsize=1)
def _c_library() -> ctypes.CDLL | None:
    name = ctypes.util.find_library("c")
    return ctypes.CDLL(name) if name else None
