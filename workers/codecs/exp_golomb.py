"""Exponential-Golomb codes EG(k), and the sparse ones SEG(k), for which zero is a single bit."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from search_spaces.activation_codes import CodecName
from workers.codecs.base import Codec
from workers.codecs.tables import packed_codes, several_table, single_table

_BITS_OF_TABLES = 8
"""Codes of so narrow values are short enough to be looked up, several at once."""


class ExpGolombCodec(Codec):
    """EG(k) and SEG(k), as the code's name says (Georgiadis, CVPR 2019, arXiv 1812.04056).

    EG(k) of x >= 0 is v = floor(x / 2^k) + 1 in binary behind as many zeros as v has bits after its first, then the k
    low bits of x: x + 2^k, in binary, behind the zeros. SEG(k) of 0 is a single 1, of x > 0 a 0 and EG(k) of x - 1.
    """

    def _write(self, values: np.ndarray, words: np.ndarray) -> int:
        from workers.codecs.kernels import write_codes

        return int(write_codes(values, packed_codes(self._codes, self.code.lengths), words))

    def _read(self, words: np.ndarray, bits: int, values: np.ndarray) -> int:
        from workers.codecs.kernels import read_codes, read_exp_golomb

        if self.bits <= _BITS_OF_TABLES:
            return int(read_codes(words, bits, *self._reading, values))
        is_sparse = self.code.name is CodecName.SEG
        return int(read_exp_golomb(words, bits, self._k, is_sparse, 2**self.bits - 1, values))

    @property
    def _k(self) -> int:
        assert self.code.k is not None, "a Golomb code has a k"
        return self.code.k

    @cached_property
    def _codes(self) -> np.ndarray:
        codes = np.arange(2**self.bits, dtype=np.uint64) + np.uint64(2**self._k)
        if self.code.name is CodecName.SEG:
            codes -= np.uint64(1)
            codes[0] = 1
        return codes

    @cached_property
    def _reading(self) -> tuple[np.ndarray, ...]:
        """What the kernel reads by: tables that hold all codes."""
        symbols, lengths = np.arange(2**self.bits), self.code.lengths
        every = single_table(self._codes, lengths, symbols, int(lengths.max()))
        return several_table(self._codes, lengths, symbols), every
