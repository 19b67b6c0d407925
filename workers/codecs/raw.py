"""Values as they are, in q bits, and zero-value compression: a mask, and those that are not zero as they are."""

from __future__ import annotations

import numpy as np

from workers.codecs.base import Codec
from workers.codecs.tables import packed_codes


class RawCodec(Codec):
    """Each value in q bits."""

    def _write(self, values: np.ndarray, words: np.ndarray) -> int:
        from workers.codecs.kernels import write_codes  # importing numba takes a quarter of a second

        codes = np.arange(2**self.bits, dtype=np.uint64)
        return int(write_codes(values, packed_codes(codes, self.code.lengths), words))

    def _read(self, words: np.ndarray, bits: int, values: np.ndarray) -> int:
        from workers.codecs.kernels import read_raw

        return int(read_raw(words, bits, self.bits, values))


class ZeroValueCodec(Codec):
    """Of every 32 values a mask with a bit for each, 1 for what is not zero, then those values in q bits.

    Rhu et al., Compressing DMA Engine (HPCA 2018). n values of which nnz are not zero take n + q nnz bits.
    """

    def _write(self, values: np.ndarray, words: np.ndarray) -> int:
        from workers.codecs.kernels import write_zero_value

        return int(write_zero_value(values, self.bits, words))

    def _read(self, words: np.ndarray, bits: int, values: np.ndarray) -> int:
        from workers.codecs.kernels import read_zero_value

        return int(read_zero_value(words, bits, self.bits, values))
