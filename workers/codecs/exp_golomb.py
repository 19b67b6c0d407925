"""Exponential-Golomb codes EG(k), and the sparse ones SEG(k), for which zero is a single bit."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from search_spaces.activation_codes import CodecName
from workers.codecs.base import Codec
from workers.codecs.tables import packed_codes


class ExpGolombCodec(Codec):
    """EG(k) and SEG(k), as the code's name says (Georgiadis, CVPR 2019, arXiv 1812.04056).

    EG(k) of x >= 0 is v = floor(x / 2^k) + 1 in binary behind as many zeros as v has bits after its first, then the k
    low bits of x: x + 2^k, in binary, behind the zeros. SEG(k) of 0 is a single 1, of x > 0 a 0 and EG(k) of x - 1.
    """

    @cached_property
    def _codes(self) -> np.ndarray:
        values = np.arange(2**self.bits, dtype=np.uint64)
        codes = values + np.uint64(2**self._k)
        if self._is_sparse:
            codes -= np.uint64(1)
            codes[0] = 1
        return packed_codes(codes, self.code.lengths)

    @property
    def _k(self) -> int:
        assert self.code.k is not None, "a Golomb code has a k"
        return self.code.k

    @property
    def _is_sparse(self) -> bool:
        return self.code.name is CodecName.SEG

    def _write(self, values: np.ndarray, words: np.ndarray) -> int:
        from workers.codecs.kernels import write_codes

        return int(write_codes(values, self._codes, words))

    def _read(self, words: np.ndarray, bits: int, values: np.ndarray) -> int:
        from workers.codecs.kernels import read_exp_golomb

        return int(read_exp_golomb(words, bits, self._k, self._is_sparse, 2**self.bits - 1, values))
