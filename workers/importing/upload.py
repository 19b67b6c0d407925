"""What a user handed over: an ONNX file, a zip with one and the files that hold its data, or safetensors weights.

It is told by its bytes. Of a zip only plain file names are used, in a folder of our own, and nothing is inflated
beyond what is allowed.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO

from workers.importing.faults import refuse

MOST_BYTES = 2**31 - 1
"""Of a file and all its data: more cannot be said in one protobuf."""

MOST_MEMBERS = 1_000
LARGEST_RATIO = 20
"""Of inflated to stored bytes: weights hardly shrink."""

_CHUNK_BYTES = 2**20
_UNZIP_ERRORS = (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


class UploadKind(StrEnum):
    ONNX = "onnx"
    WEIGHTS = "safetensors"


@dataclass(frozen=True)
class Upload:
    """A file, and those that came with it, by their plain names. All lie in one folder."""

    kind: UploadKind
    path: Path
    external: dict[str, Path]


@contextmanager
def open_upload(path: Path) -> Iterator[Upload]:
    """Say what a file is; what had to be unpacked is gone afterwards.

    Raises:
        ImportRefusedError: it is nothing that can be imported.
    """
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise refuse(f"the file has {size:,} bytes; {MOST_BYTES:,} are the most")
    with path.open("rb") as file:
        head = file.read(9)
    if head[:4] == b"PK\x03\x04":
        with TemporaryDirectory(prefix="espalier-", dir=path.parent) as folder:
            yield _unpacked(path, Path(folder))
    elif len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") < size:
        yield Upload(UploadKind.WEIGHTS, path, {})
    else:
        yield Upload(UploadKind.ONNX, path, {})


def _unpacked(path: Path, folder: Path) -> Upload:
    try:
        with zipfile.ZipFile(path) as archive:
            files = _extract(archive, folder, LARGEST_RATIO * path.stat().st_size)
    except _UNZIP_ERRORS as error:
        raise refuse(f"the zip file cannot be read: {error}; make it again, without a password") from None
    models = [name for name in files if name.lower().endswith(".onnx")]
    if len(models) != 1:
        found = ", ".join(sorted(models)) or "none"
        raise refuse(
            f"a zip file has to hold one .onnx file and its data; in this one there are {len(models)}: {found}. What "
            "torch.save has written is a zip too: export the network with torch.onnx.export"
        )
    return Upload(UploadKind.ONNX, files.pop(models[0]), files)


def _extract(archive: zipfile.ZipFile, folder: Path, most_bytes: int) -> dict[str, Path]:
    """The files by their plain names: whatever folders they are in, no path of theirs is ever used."""
    members = [member for member in archive.infolist() if not member.is_dir()]
    if len(members) > MOST_MEMBERS:
        raise refuse(f"the zip file holds {len(members):,} files; {MOST_MEMBERS:,} are the most")
    files: dict[str, Path] = {}
    left = min(most_bytes, MOST_BYTES)
    for member in members:
        name = PurePosixPath(member.filename).name
        if name in files or not _is_plain(name):
            raise refuse("has a name that another file has too, or that is none", member.filename)
        files[name] = folder / name
        with archive.open(member) as source, files[name].open("wb") as target:
            left -= _copy(source, target, left, member.filename)
    return files


def _copy(source: IO[bytes], target: IO[bytes], most_bytes: int, part: str) -> int:
    """Copy and return the number of bytes; what a member says of its size is not believed."""
    copied = 0
    while chunk := source.read(_CHUNK_BYTES):
        copied += len(chunk)
        if copied > most_bytes:
            raise refuse(f"makes more than {most_bytes:,} bytes when it is unpacked", part)
        target.write(chunk)
    return copied


def _is_plain(name: str) -> bool:
    return name not in ("", ".", "..") and not set(name) & set("/\\\0") and len(name.encode()) < 250
