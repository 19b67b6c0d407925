"""Files that users hand over: kept under the SHA-256 of their bytes until a worker has made something of them."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from sqlalchemy import select
from sqlalchemy.orm import Session

from search_spaces.faults import Fault
from service.artifacts.store import path_of
from service.errors import BodyTooLargeError, InvalidRequestError
from service.models import ImportedNetwork, OwnDataset
from service.states import JobState

_CHUNK_BYTES = 2**20
_LONGEST_NAME = 200
_UNFINISHED = ".upload."


@dataclass(frozen=True, slots=True)
class Upload:
    """A stored file.

    Attributes:
        filename: as the user called it, without folders; for people only.
        digest: SHA-256 of its bytes, which names it.
    """

    filename: str
    digest: str


def store_upload(folder: Path, source: BinaryIO, filename: str | None, most_bytes: int) -> Upload:
    """Copy a file to its place; it appears there whole or not at all.

    Raises:
        BodyTooLargeError: it has more than `most_bytes`.
        InvalidRequestError: it is empty.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle, unfinished = tempfile.mkstemp(dir=folder, prefix=_UNFINISHED)
    try:
        with os.fdopen(handle, "wb") as target:
            digest = _copy(source, target, most_bytes)
            target.flush()
            os.fsync(target.fileno())
            os.fchmod(target.fileno(), 0o644)  # service and workers may be different users
        place = path_of(folder, digest)
        place.parent.mkdir(parents=True, exist_ok=True)
        Path(unfinished).rename(place)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise
    return Upload(plain_name(filename), digest)


def remove_unneeded(session: Session, folder: Path, older_than_s: float) -> int:
    """Remove files that nothing will be made of any more; returns how many.

    A network is made of its file once. A data set keeps its archives, unless they were refused. What has just come
    may be about to get its row.
    """
    open_states = (JobState.QUEUED, JobState.RUNNING)
    networks = select(ImportedNetwork.upload_digest).where(ImportedNetwork.state.in_(open_states))
    datasets = select(OwnDataset.upload_digest).where(OwnDataset.state != JobState.FAILED)
    needed = {*session.scalars(networks), *session.scalars(datasets)}
    removed, now = 0, time.time()
    for path in [*folder.glob("*/*"), *folder.glob(f"{_UNFINISHED}*")]:
        if path.name not in needed and now - path.stat().st_mtime > older_than_s:
            _remove(path)
            removed += 1
    return removed


def _remove(path: Path) -> None:
    """A file; or what a worker unpacked beside one, and was killed over."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _copy(source: BinaryIO, target: BinaryIO, most_bytes: int) -> str:
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(_CHUNK_BYTES):
        size += len(chunk)
        if size > most_bytes:
            raise BodyTooLargeError(f"a file may have {most_bytes:,} bytes", headers={"Connection": "close"})
        digest.update(chunk)
        target.write(chunk)
    if not size:
        raise InvalidRequestError("the file is empty", faults=[Fault("/file", "this file has no bytes")])
    return digest.hexdigest()


def plain_name(filename: str | None) -> str:
    name = PurePosixPath((filename or "").replace("\\", "/")).name
    kept = "".join(character for character in name if character.isprintable())
    return kept[-_LONGEST_NAME:] or "upload"
