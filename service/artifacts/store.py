"""Files named by the SHA-256 of their bytes. Knows no database; see `service.artifacts.actions` for the rows."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from service.files import write_atomically

ARTIFACTS = "artifacts"
"""The folder in ESPALIER_HOME that holds what is handed out."""

SAME_HOME = "do the service and all workers have the same ESPALIER_HOME?"
"""What to ask when a file is missing that another process has written."""

_DIGEST = re.compile(r"[0-9a-f]{64}")


def put_bytes(folder: Path, data: bytes) -> str:
    """Store `data` and return its digest. The file appears whole or not at all; storing it again changes nothing."""
    digest = hashlib.sha256(data).hexdigest()
    target = path_of(folder, digest)
    if target.exists():
        return digest
    write_atomically(target, data)
    return digest


def open_path(folder: Path, digest: str) -> Path:
    """Where the bytes of `digest` are.

    Raises:
        ValueError: that is no digest.
        FileNotFoundError: they are not here.
    """
    if not _DIGEST.fullmatch(digest):
        raise ValueError(f"{digest!r} is no SHA-256 digest")
    path = path_of(folder, digest)
    if not path.is_file():
        raise FileNotFoundError(f"artifact {digest} is not in {folder}; {SAME_HOME}")
    return path


def path_of(folder: Path, digest: str) -> Path:
    """Where a file of that digest is, or would be."""
    # Two levels, so that no folder holds more than a few thousand files.
    return folder / digest[:2] / digest
