"""Codes of all values as tables that a loop over values looks into: how their entries are laid out."""

from __future__ import annotations

import numpy as np

LENGTH_BITS = 8
"""Of an entry code << 8 | length of what is written."""

SYMBOL_BITS = 17
"""Of an entry length << 17 | symbol of what is read."""

ESCAPE = 1 << 16
"""The symbol that stands for a raw value."""


def packed_codes(codes: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Entries of what is written, uint64, of codes with up to 56 bits."""
    packed: np.ndarray = (codes << np.uint64(LENGTH_BITS)) | lengths.astype(np.uint64)
    return packed
