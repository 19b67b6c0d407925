"""What every Codec must do, as tests. Subclass it in a test module and say which code is fitted.

class TestMyCodec(CodecContract):
    name = CodecName.SEG
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from search_spaces.activation_codes import CodecName, fit_code
from workers.codecs import open_codec
from workers.codecs.base import Codec, DamagedStreamError

ALL_BITS = (1, 2, 5, 8, 9, 12, 16)


def sparse_values(bits: int, size: int = 5000, share: float = 0.4, seed: int = 0) -> np.ndarray:
    """Values as a relu leaves them: many zeros, the rest ever rarer the larger they are."""
    generator = np.random.default_rng(seed)
    top = 2**bits - 1
    drawn = np.minimum(np.rint(generator.exponential(top / 8, size)), top) * (generator.random(size) < share)
    values: np.ndarray = drawn.astype(np.uint8 if bits <= 8 else np.uint16)
    return values


def histogram(values: np.ndarray, bits: int) -> np.ndarray:
    counts: np.ndarray = np.bincount(values.reshape(-1), minlength=2**bits)
    return counts


class CodecContract:
    """See `workers.codecs.base.Codec`."""

    name: CodecName

    def fitted(self, values: np.ndarray, bits: int) -> Codec:
        return open_codec(fit_code(self.name, histogram(values, bits)))

    def check(self, codec: Codec, values: np.ndarray) -> None:
        """The stream is as long as was told, and leads back to the values."""
        stream = codec.encode(values)
        assert len(stream) == -(-codec.length_bits(values) // 8)
        decoded = codec.decode(stream, values.size)
        assert decoded.dtype == (np.uint8 if codec.bits <= 8 else np.uint16)
        np.testing.assert_array_equal(decoded, values.reshape(-1))

    @pytest.mark.parametrize("bits", ALL_BITS)
    def test_what_it_was_fitted_to_comes_back(self, bits: int) -> None:
        values = sparse_values(bits).reshape(2, 10, 25, 10)
        self.check(self.fitted(values, bits), values)

    @pytest.mark.parametrize("bits", ALL_BITS)
    def test_every_value_comes_back_whatever_it_was_fitted_to(self, bits: int) -> None:
        every = np.random.default_rng(1).permutation(2**bits).astype(np.uint8 if bits <= 8 else np.uint16)
        for fitted_to in (every, every[:1], np.zeros(100, every.dtype), np.zeros(0, every.dtype), sparse_values(bits)):
            self.check(self.fitted(fitted_to, bits), every)

    @pytest.mark.parametrize("bits", ALL_BITS)
    def test_extremes(self, bits: int) -> None:
        codec, top = self.fitted(sparse_values(bits), bits), 2**bits - 1
        for values in ([], [0], [top], [0] * 1000, [top] * 1000, [1] * 33, [0, top] * 500):
            self.check(codec, np.array(values, np.uint16))

    # Each subclass runs it for a codec of its own.
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
    @given(data=st.data(), bits=st.sampled_from(ALL_BITS))
    def test_any_array_comes_back(self, data: st.DataObject, bits: int) -> None:
        wide = st.integers(0, 2**bits - 1)
        some = arrays(np.uint16, st.integers(0, 200), elements=st.one_of(st.just(0), wide), fill=st.nothing())
        fitted_to, values = data.draw(some), data.draw(some)
        self.check(self.fitted(fitted_to, bits), values)
        self.check(self.fitted(values, bits), values)

    @pytest.mark.parametrize("bits", [4, 12])
    def test_values_that_do_not_fit_are_refused(self, bits: int) -> None:
        codec = self.fitted(sparse_values(bits), bits)
        with pytest.raises(ValueError, match=f"{2**bits} does not fit into {bits} bits"):
            codec.encode(np.array([0, 2**bits], np.uint16))
        with pytest.raises(ValueError, match="uint8 or uint16, not float32"):
            codec.encode(np.zeros(3, np.float32))

    @pytest.mark.parametrize("bits", ALL_BITS)
    def test_a_stream_of_another_length_is_damaged(self, bits: int) -> None:
        values = sparse_values(bits, 999)
        codec = self.fitted(values, bits)
        stream = codec.encode(values)
        for damaged in (stream[:-1], stream[: len(stream) // 2], b"", stream + b"\0", stream + stream):
            with pytest.raises(DamagedStreamError):
                codec.decode(damaged, len(values))
        for count in (-1, 2**50, len(values) + 9):
            with pytest.raises(DamagedStreamError):
                codec.decode(stream, count)

    @pytest.mark.parametrize("bits", ALL_BITS)
    def test_noise_is_refused_or_is_the_stream_of_what_is_read(self, bits: int) -> None:
        """Nothing hangs or is read from elsewhere; what is accepted is what would have been written."""
        generator = np.random.default_rng(bits)
        codec = self.fitted(sparse_values(bits), bits)
        for number in range(200):
            noise = generator.integers(0, 256, generator.integers(0, 40), dtype=np.uint8)
            if number % 2:  # many ones or many zeros
                noise &= generator.integers(0, 256, len(noise), dtype=np.uint8) & 0x11
            stream = noise.tobytes()
            try:
                values = codec.decode(stream, int(generator.integers(0, 60)))
            except DamagedStreamError:
                continue
            assert self.is_same_stream(codec, values, stream)

    def is_same_stream(self, codec: Codec, values: np.ndarray, stream: bytes) -> bool:
        return codec.encode(values) == stream

    @pytest.mark.parametrize("bits", ALL_BITS)
    def test_flipped_bits_never_crash(self, bits: int) -> None:
        values = sparse_values(bits, 100)
        codec = self.fitted(values, bits)
        stream = codec.encode(values)
        for place in range(8 * len(stream)):
            damaged = bytearray(stream)
            damaged[place // 8] ^= 0x80 >> place % 8
            try:
                read = codec.decode(bytes(damaged), len(values))
            except DamagedStreamError:
                continue
            assert self.is_same_stream(codec, read, bytes(damaged))
