"""Reads the IDX format of MNIST-like data sets, strictly. Source: http://yann.lecun.com/exdb/mnist."""

from __future__ import annotations

import io
import math
from typing import BinaryIO

import numpy as np

_UNSIGNED_BYTE = 0x08


def parse_idx(data: bytes) -> np.ndarray:
    """The array of unsigned bytes in an unpacked IDX file, read-only.

    Raises:
        ValueError: it has another magic, another element type, or not exactly the bytes that it declares.
    """
    stream = io.BytesIO(data)
    shape = read_idx_header(stream)
    header = stream.tell()
    if len(data) - header != math.prod(shape):
        raise ValueError(f"the IDX file declares {shape} but holds {len(data) - header} bytes")
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape)


def read_idx_header(stream: BinaryIO) -> tuple[int, ...]:
    """The shape of the array of unsigned bytes that follows in an unpacked IDX file.

    Raises:
        ValueError: it has another magic or another element type, or ends here.
    """
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] != _UNSIGNED_BYTE or magic[3] == 0:
        raise ValueError(f"no IDX file of unsigned bytes: it begins with {magic.hex() or 'nothing'}")
    sizes = stream.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise ValueError("the IDX file ends in its header")
    return tuple(int(size) for size in np.frombuffer(sizes, dtype=">u4"))
