"""Zip files from strangers, read within limits.

What an archive declares of itself is checked before anything is inflated, and not believed afterwards: no read gives
more than it was asked for. Nothing is ever written under a name that an archive gives.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast
from zipfile import ZipFile, ZipInfo

from workers.datasets.refusal import DatasetFault, DatasetRefusedError, UnreadableError, refuse, refuse_any

THE_ARCHIVE = "the archive"

MAX_MEMBERS = 250_000
MAX_DIRECTORY_BYTES = 32 << 20
"""Of the list of contents; it bounds the memory that listing a hostile archive takes to 250 MB."""
MAX_TOTAL_BYTES = 64 << 30
"""Of all members together, inflated."""
MAX_RATIO = 200
"""Inflated size by compressed size. Images reach 2, raw arrays 20, bombs 1,000."""
ANY_RATIO_BYTES = 1 << 20
"""Less than this may have been compressed as much as it likes."""

_ENCRYPTED = 0x1 | 0x40
_READABLE_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
READ_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, NotImplementedError, RuntimeError)
"""What reading a damaged member raises."""


class _WaryFile(io.BufferedReader):
    """A file that hands out no more at once than a list of contents may have, while `is_wary`."""

    is_wary = True

    def read(self, size: int | None = -1, /) -> bytes:
        if not self.is_wary:
            return super().read(size)
        if size is None or size < 0:
            size = os.fstat(self.fileno()).st_size - self.tell()
        data = super().read(min(size, MAX_DIRECTORY_BYTES + 1))
        if len(data) > MAX_DIRECTORY_BYTES:
            raise refuse(THE_ARCHIVE, f"holds too many files or too long names; {_SPLIT_IT}")
        return data


_SPLIT_IT = f"a data set may have {MAX_MEMBERS:,} files in an archive: use several archives, or an .npz"


@contextmanager
def open_archive(path: Path) -> Iterator[ZipFile]:
    """Open a zip file whose list of contents promises nothing bad.

    Raises:
        DatasetRefusedError: it is none, is cut short, encrypted or ambiguous, or would inflate beyond the limits.
    """
    with _WaryFile(io.FileIO(path)) as file:
        try:
            archive = ZipFile(file)
        except DatasetRefusedError:
            raise
        except (*READ_ERRORS, ValueError, OverflowError) as error:
            raise refuse(
                THE_ARCHIVE, f"is no zip file and no .npz, or is cut short ({error}); send it again"
            ) from error
        file.is_wary = False
        with archive:
            _check(archive, path.stat().st_size)
            yield archive


def _check(archive: ZipFile, archive_bytes: int) -> None:
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise refuse(THE_ARCHIVE, f"holds {len(members):,} files; {_SPLIT_IT}")
    refuse_any(_member_faults(members))
    total = sum(member.file_size for member in members)
    if total > min(MAX_TOTAL_BYTES, inflated_limit(archive_bytes)):
        message = (
            f"would inflate from {archive_bytes:,} to {total:,} bytes; {MAX_TOTAL_BYTES:,} bytes and {MAX_RATIO} times "
            "the archive's size are allowed: make the images smaller, or use several archives"
        )
        raise refuse(THE_ARCHIVE, message)


def _member_faults(members: list[ZipInfo]) -> Iterator[DatasetFault]:
    seen: set[str] = set()
    for member in members:
        name = member.filename
        if not name:
            yield DatasetFault(THE_ARCHIVE, "holds a file without a name; pack it again")
        elif member.flag_bits & _ENCRYPTED:
            yield DatasetFault(name, "is encrypted; pack the archive without a password")
        elif member.compress_type not in _READABLE_METHODS:
            yield DatasetFault(name, "is compressed in a way that is not read here; pack with deflate, or store")
        elif name in seen:
            yield DatasetFault(name, "is in the archive twice; pack it again with each file once")
        elif member.file_size > inflated_limit(member.compress_size):
            message = (
                f"would inflate from {member.compress_size:,} to {member.file_size:,} bytes; store it uncompressed"
            )
            yield DatasetFault(name, f"{message} if that is no mistake")
        seen.add(name)


def inflated_limit(compressed_bytes: int) -> int:
    """What so many bytes may inflate to."""
    return max(ANY_RATIO_BYTES, MAX_RATIO * compressed_bytes)


def read_member(archive: ZipFile, member: ZipInfo, max_bytes: int) -> bytes:
    """The bytes of one member.

    Raises:
        UnreadableError: it is damaged, or has more than `max_bytes`.
    """
    if member.file_size > max_bytes:
        raise UnreadableError(f"has {member.file_size:,} bytes; {max_bytes:,} are read: make it smaller")
    try:
        with archive.open(member) as file:
            data = file.read(member.file_size + 1)  # no more is inflated than is asked for
    except READ_ERRORS as error:
        raise UnreadableError(f"is damaged in the archive ({error}); pack it again") from error
    if len(data) != member.file_size:
        raise UnreadableError(f"has {len(data):,} bytes where the archive says {member.file_size:,}; pack it again")
    return data


def open_member(archive: ZipFile, member: ZipInfo) -> BinaryIO:
    """A stream of one member's bytes, buffered: reading a little at a time inflates a little at a time."""
    return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, archive.open(member)), 1 << 18))
