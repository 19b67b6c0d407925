"""Canonical Huffman codes: a decoder is told the length of each value's code and nothing else."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from search_spaces.activation_codes import LONGEST_HUFFMAN_CODE
from workers.codecs.base import Codec
from workers.codecs.tables import ESCAPE, SYMBOL_BITS, packed_codes

_SHORT_BITS, _LONG_BITS = 11, 16
"""Of the two tables. The first stays in the nearest cache; codes longer than the second are of rare values."""


class HuffmanCodec(Codec):
    """Each value by its code; one without a code by an escape, the last of the symbols, and its q bits.

    Codes of one length are consecutive numbers in the order of the symbols, and the first of a length is twice what
    comes behind the last of the length before.
    """

    def _write(self, values: np.ndarray, words: np.ndarray) -> int:
        from workers.codecs.kernels import write_codes

        return int(write_codes(values, self._codes, words))

    def _read(self, words: np.ndarray, bits: int, values: np.ndarray) -> int:
        from workers.codecs.kernels import read_huffman

        return int(read_huffman(words, bits, *self._reading, self.bits, values))

    @cached_property
    def _symbol_lengths(self) -> np.ndarray:
        """Of the values and the escape, (2^q + 1,)."""
        assert self.code.table is not None, "a Huffman code has a table"
        return np.append(self.code.table, self.code.escape)

    @cached_property
    def _canonical(self) -> tuple[np.ndarray, np.ndarray]:
        """Symbols in the order of their codes, and their codes."""
        lengths = self._symbol_lengths
        order = np.argsort(lengths, kind="stable")
        order = order[lengths[order] > 0]
        # Aligned to one length, a code begins where the one before ends.
        spans = np.uint64(1) << (LONGEST_HUFFMAN_CODE - lengths[order]).astype(np.uint64)
        starts = np.concatenate([np.zeros(1, np.uint64), np.cumsum(spans)[:-1]])
        return order, starts >> (LONGEST_HUFFMAN_CODE - lengths[order]).astype(np.uint64)

    @cached_property
    def _codes(self) -> np.ndarray:
        order, canonical = self._canonical
        codes = np.zeros(2**self.bits + 1, np.uint64)
        codes[order] = canonical
        raw = (codes[-1] << np.uint64(self.bits)) | np.arange(2**self.bits, dtype=np.uint64)
        return packed_codes(np.where(self._symbol_lengths[:-1] > 0, codes[:-1], raw), self.code.lengths)

    @cached_property
    def _reading(self) -> tuple[np.ndarray, ...]:
        """What the kernel reads by: the table of the next bits, and first code, number and place by length."""
        order, canonical = self._canonical
        lengths = self._symbol_lengths[order]
        names = np.where(order == 2**self.bits, ESCAPE, order).astype(np.uint32)
        count = np.bincount(lengths, minlength=LONGEST_HUFFMAN_CODE + 1)
        offset = np.cumsum(count) - count
        first = np.zeros(LONGEST_HUFFMAN_CODE + 1, np.uint64)
        first[lengths[::-1]] = canonical[::-1]
        table = _table(lengths, names, min(int(lengths.max()), _LONG_BITS))
        several = _several(_table(lengths, names, _SHORT_BITS))
        return several, table, first, count.astype(np.uint64), offset.astype(np.uint64), names


def _table(lengths: np.ndarray, names: np.ndarray, bits: int) -> np.ndarray:
    """The entry of the code that so many bits begin with; 0 where they do not tell it."""
    short = lengths <= bits
    entries = (lengths[short].astype(np.uint32) << np.uint32(SYMBOL_BITS)) | names[short]
    filled = np.repeat(entries, 2 ** (bits - lengths[short]))
    table = np.zeros(2**bits, np.uint32)
    table[: len(filled)] = filled
    return table


def _several(table: np.ndarray) -> np.ndarray:
    """Up to three values that the bits of a table begin with, uint64.

    From the highest bit on: the values in 16 bits each, the length of their codes together, their number in two bits.
    """
    bits = len(table).bit_length() - 1
    lengths, names = (table >> np.uint32(SYMBOL_BITS)).astype(np.int64), table & np.uint32(2**SYMBOL_BITS - 1)
    lengths[names == ESCAPE] = 0
    windows = np.arange(len(table))
    used, found = np.zeros((2, len(table)), np.int64)
    packed = np.zeros(len(table), np.uint64)
    for number, place in enumerate((48, 32, 16)):
        behind = (windows << used) & (len(table) - 1)
        fits = (lengths[behind] > 0) & (used + lengths[behind] <= bits) & (found == number)
        packed |= np.where(fits, names[behind].astype(np.uint64) << np.uint64(place), np.uint64(0))
        used += np.where(fits, lengths[behind], 0)
        found += fits
    return packed | (used << 2 | found).astype(np.uint64)
