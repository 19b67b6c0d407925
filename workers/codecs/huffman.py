"""Canonical Huffman codes: a decoder is told the length of each value's code and nothing else."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from search_spaces.activation_codes import LONGEST_HUFFMAN_CODE
from workers.codecs.base import Codec
from workers.codecs.tables import ESCAPE, FEW_BITS, packed_codes, several_table


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
        """What the kernel reads by: tables of the next bits, and first code, number and place by length."""
        order, canonical = self._canonical
        lengths = self._symbol_lengths[order]
        names = np.where(order == 2**self.bits, ESCAPE, order).astype(np.uint32)
        starts = canonical << (LONGEST_HUFFMAN_CODE - lengths).astype(np.uint64)
        prefixes = np.arange(2**FEW_BITS, dtype=np.uint64) << np.uint64(LONGEST_HUFFMAN_CODE - FEW_BITS)
        least = lengths[np.searchsorted(starts, prefixes, side="right") - 1].astype(np.uint8)
        count = np.bincount(lengths, minlength=LONGEST_HUFFMAN_CODE + 1)
        offset = np.cumsum(count) - count
        first = np.zeros(LONGEST_HUFFMAN_CODE + 1, np.uint64)
        first[lengths[::-1]] = canonical[::-1]
        several = several_table(canonical, lengths, names)
        return several, least, first, count.astype(np.uint64), offset.astype(np.uint64), names
