"""What a machine is called where others must tell it from their own."""

from __future__ import annotations

import hashlib
import platform
from functools import lru_cache
from pathlib import Path

_MACHINE_ID = Path("/etc/machine-id")
_DIGITS = 8


@lru_cache(maxsize=1)
def machine_name() -> str:
    """The host's name, and where the machine has an id, some digits of its digest: many hosts are called alike.

    The id itself is not for others to read (machine-id(5)).
    """
    return name_with_id(platform.node(), _MACHINE_ID)


def name_with_id(name: str, id_file: Path) -> str:
    """The name alone where there is no id, or none yet."""
    try:
        machine_id = id_file.read_bytes().strip()
    except OSError:
        return name
    if machine_id in (b"", b"uninitialized"):
        return name
    return f"{name} ({hashlib.sha256(b'espalier ' + machine_id).hexdigest()[:_DIGITS]})"
