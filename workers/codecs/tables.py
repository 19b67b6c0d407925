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


FEW_BITS = 11
"""Of the table of several values: it stays in the nearest cache."""


def several_table(codes: np.ndarray, lengths: np.ndarray, symbols: np.ndarray) -> np.ndarray:
    """Up to three values that the next bits begin with, uint64 (2^`FEW_BITS`,).

    From the highest bit on: the values in 16 bits each, the length of their codes together, their number in two bits.

    Args:
        codes: of each symbol, uint64.
        lengths: of the codes.
        symbols: values below 2^16, or `ESCAPE`, which ends them.
    """
    table = single_table(codes, lengths, symbols, FEW_BITS)
    lengths, names = (table >> np.uint32(SYMBOL_BITS)).astype(np.int64), table & np.uint32(2**SYMBOL_BITS - 1)
    lengths[names == ESCAPE] = 0
    windows = np.arange(len(table))
    used, found = np.zeros((2, len(table)), np.int64)
    packed = np.zeros(len(table), np.uint64)
    for number, place in enumerate((48, 32, 16)):
        behind = (windows << used) & (len(table) - 1)
        fits = (lengths[behind] > 0) & (used + lengths[behind] <= FEW_BITS) & (found == number)
        packed |= np.where(fits, names[behind].astype(np.uint64) << np.uint64(place), np.uint64(0))
        used += np.where(fits, lengths[behind], 0)
        found += fits
    return packed | (used << 2 | found).astype(np.uint64)


def single_table(codes: np.ndarray, lengths: np.ndarray, symbols: np.ndarray, bits: int) -> np.ndarray:
    """The entry of the code that the next bits begin with, uint32 (2^bits,); 0 where they do not tell it."""
    short = np.flatnonzero(lengths <= bits)
    spans = 2 ** (bits - lengths[short])
    places = np.repeat(codes[short].astype(np.int64) * spans - (np.cumsum(spans) - spans), spans)
    table = np.zeros(2**bits, np.uint32)
    entries = (lengths[short].astype(np.uint32) << np.uint32(SYMBOL_BITS)) | symbols[short].astype(np.uint32)
    table[places + np.arange(len(places))] = np.repeat(entries, spans)
    return table
