"""Downloads and unpacks files whose content is known beforehand. Trusts nothing but their SHA-256."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass

import httpx

from workers.progress import Progress

_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_AS_STORED = {"accept-encoding": "identity"}
_GZIP = 16 + zlib.MAX_WBITS
_CHUNK_BYTES = 1 << 18


class SourceError(RuntimeError):
    """One source does not have the file, or not whole; another may."""


@dataclass(frozen=True, slots=True)
class PinnedFile:
    """A file's name, and the size and SHA-256 of its bytes."""

    name: str
    size: int
    sha256: str


def check(pinned: PinnedFile, data: bytes) -> bytes:
    """Give back `data` when it is the pinned file.

    Raises:
        SourceError: it is not.
    """
    if len(data) != pinned.size or hashlib.sha256(data).hexdigest() != pinned.sha256:
        raise SourceError(f"{pinned.name}: {len(data)} bytes that do not have the known checksum")
    return data


def gunzip(pinned: PinnedFile, archive: bytes) -> bytes:
    """Unpack and check, never making more than the pinned size.

    Raises:
        SourceError: the archive is damaged or holds something else.
    """
    try:
        data = zlib.decompressobj(_GZIP).decompress(archive, pinned.size + 1)
    except zlib.error as error:
        raise SourceError(f"{pinned.name}.gz is damaged: {error}") from error
    return check(pinned, data)


def download(url: str, max_bytes: int, progress: Progress) -> bytes:
    """Get the file as it is stored, at most `max_bytes`.

    Raises:
        SourceError: no answer in time, not 200, or more bytes than that.
    """
    parts: list[bytes] = []
    received = 0
    try:
        with httpx.stream("GET", url, headers=_AS_STORED, timeout=_TIMEOUT, follow_redirects=True) as response:
            response.raise_for_status()
            total = int(response.headers.get("content-length", max_bytes))
            for part in response.iter_raw(_CHUNK_BYTES):
                parts.append(part)
                received += len(part)
                if received > max_bytes:
                    raise SourceError(f"{url}: more than the expected {max_bytes} bytes")
                progress("dataset", min(1.0, received / max(total, 1)), f"downloading {url}")
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise SourceError(f"{url}: {error or type(error).__name__}") from error
    return b"".join(parts)
