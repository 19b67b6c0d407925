"""Files that users hand over: kept under the SHA-256 of their bytes until a worker has made something of them."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from search_spaces.check import Fault
from service.artifacts.store import path_of
from service.errors import BodyTooLargeError, InvalidRequestError

_CHUNK_BYTES = 2**20
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class Upload:
    """A stored file.

    Attributes:
        filename: as the user called it, without folders; for people only.
        digest: SHA-256 of its bytes, which names it.
    """

    filename: str
    digest: str
    size_bytes: int


def store_upload(folder: Path, source: BinaryIO, filename: str | None, most_bytes: int) -> Upload:
    """Copy a file to its place; it appears there whole or not at all.

    Raises:
        BodyTooLargeError: it has more than `most_bytes`.
        InvalidRequestError: it is empty.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle, unfinished = tempfile.mkstemp(dir=folder, prefix=".upload.")
    try:
        with os.fdopen(handle, "wb") as target:
            digest, size = _copy(source, target, most_bytes)
            target.flush()
            os.fsync(target.fileno())
        place = path_of(folder, digest)
        place.parent.mkdir(parents=True, exist_ok=True)
        Path(unfinished).rename(place)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise
    return Upload(_plain_name(filename), digest, size)


def _copy(source: BinaryIO, target: BinaryIO, most_bytes: int) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(_CHUNK_BYTES):
        size += len(chunk)
        if size > most_bytes:
            raise BodyTooLargeError(f"a file may have {most_bytes:,} bytes", headers={"Connection": "close"})
        digest.update(chunk)
        target.write(chunk)
    if not size:
        raise InvalidRequestError("the file is empty", faults=[Fault("/file", "this file has no bytes")])
    return digest.hexdigest(), size


def _plain_name(filename: str | None) -> str:
    name = PurePosixPath((filename or "").replace("\\", "/")).name
    kept = "".join(character for character in name if character.isprintable())
    return kept[-_LONGEST_NAME:] or "upload"
