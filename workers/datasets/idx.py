"""Reads the IDX format of MNIST-like data sets, strictly. Source: http://yann.lecun.com/exdb/mnist."""

from __future__ import annotations

import math

import numpy as np

_UNSIGNED_BYTE = 0x08


def parse_idx(data: bytes) -> np.ndarray:
    """The array of unsigned bytes in an unpacked IDX file, read-only.

    Raises:
        ValueError: it has another magic, another element type, or not exactly the bytes that it declares.
    """
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != _UNSIGNED_BYTE or data[3] == 0:
        raise ValueError(f"no IDX file of unsigned bytes: it begins with {data[:4].hex() or 'nothing'}")
    header = 4 + 4 * data[3]
    if len(data) < header:
        raise ValueError("the IDX file ends in its header")
    shape = tuple(int(size) for size in np.frombuffer(data[4:header], dtype=">u4"))
    if len(data) - header != math.prod(shape):
        raise ValueError(f"the IDX file declares {shape} but holds {len(data) - header} bytes")
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape)
