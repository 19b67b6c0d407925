"""The contract of codecs: activation maps to real bits and back. It must not know networks."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from search_spaces.activation_codes import ActivationCode

BYTE_BITS, WORD_BITS = 8, 32
_WORD = np.dtype(">u4")


class DamagedStreamError(ValueError):
    """A stream is not what the codec writes for that many values."""


class Codec(ABC):
    """Writes values as a fitted code, and reads them back.

    **Arguments.** Values are uint8 or uint16 of any shape, below 2^q. A stream has no header: whoever reads it knows
    the code and the number of values, as hardware does of a tensor.

    **Guarantees.** Lossless for whatever fits into q bits, whatever the code was fitted to. A stream takes exactly
    `length_bits(values)` bits, then zeros up to a whole byte. Reading takes time and memory by the number of values
    that are asked for, and a stream too short for them is refused before. What cannot be a stream raises
    `DamagedStreamError`; damage that leads to another valid stream is not seen, as there is no check sum.
    """

    def __init__(self, code: ActivationCode) -> None:
        self.code = code

    @property
    def bits(self) -> int:
        return self.code.bits

    def length_bits(self, values: np.ndarray) -> int:
        """What the stream of these values takes, told from their histogram. Raises `ValueError` as `encode`."""
        flat = self._checked(values)
        return self.code.count_bits(np.bincount(flat, minlength=2**self.bits))

    def encode(self, values: np.ndarray) -> bytes:
        """The stream of these values, in C order.

        Raises:
            ValueError: they are neither uint8 nor uint16, or one does not fit into q bits.
        """
        flat = self._checked(values)
        words = np.empty(len(flat) * int(self.code.lengths.max()) // WORD_BITS + 2, np.uint32)
        bits = self._write(flat, words)
        return words[: -(-bits // WORD_BITS)].astype(_WORD).tobytes()[: -(-bits // BYTE_BITS)]

    def decode(self, stream: bytes | memoryview, count: int) -> np.ndarray:
        """The `count` values of a stream: (count,), uint8 where q is at most 8, else uint16.

        Raises:
            DamagedStreamError: this is no stream of so many values.
        """
        size = len(stream)
        if count < 0 or count * int(self.code.lengths.min()) > size * BYTE_BITS:
            raise DamagedStreamError(f"{size:,} bytes are too few for {count:,} values")
        padded = bytes(stream) + bytes(-size % 4 + 8)
        words = np.frombuffer(padded, _WORD).astype(np.uint32)
        values: np.ndarray = np.zeros(count, np.uint8 if self.bits <= BYTE_BITS else np.uint16)
        bits = self._read(words, size * BYTE_BITS, values)
        if bits < 0 or -(-bits // BYTE_BITS) != size:
            raise DamagedStreamError(f"{size:,} bytes are no {self.code.name} stream of {count:,} values")
        if bits % BYTE_BITS and stream[-1] & (0xFF >> bits % BYTE_BITS):
            raise DamagedStreamError("a stream ends with zeros")
        return values

    def _checked(self, values: np.ndarray) -> np.ndarray:
        if values.dtype not in (np.uint8, np.uint16):
            raise ValueError(f"values are uint8 or uint16, not {values.dtype}")
        flat = np.ascontiguousarray(values).reshape(-1)
        if len(flat) and self.bits < BYTE_BITS * flat.itemsize and flat.max() >= 2**self.bits:
            raise ValueError(f"{flat.max()} does not fit into {self.bits} bits")
        return flat

    @abstractmethod
    def _write(self, values: np.ndarray, words: np.ndarray) -> int:
        """Write the codes into words that are enough, and return the number of bits."""

    @abstractmethod
    def _read(self, words: np.ndarray, bits: int, values: np.ndarray) -> int:
        """Read as many codes as there are `values`, which are zeros; return the number of bits, or a negative one."""
