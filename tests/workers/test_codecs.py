"""Real bits of activation maps: the vectors of the definition, and what every codec keeps."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from search_spaces.activation_codes import (
    ActivationCode,
    CodecName,
    entropy_bits,
    exp_golomb_lengths,
    fit_code,
    sparse_exp_golomb_lengths,
)
from workers.codecs import CODECS, open_codec
from workers.codecs.testing import CodecContract, histogram, sparse_values

SEG_VECTORS = [
    (0, {0: "1", 1: "01", 2: "0010", 3: "0011", 4: "000100"}),
    (
        2,
        {
            0: "1",
            1: "0100",
            2: "0101",
            3: "0110",
            4: "0111",
            5: "001000",
            16: "00010011",
            17: "00010100",
        },
    ),
    (4, {0: "1", 1: "010000", 16: "011111", 17: "00100000"}),
]


class TestRaw(CodecContract):
    name = CodecName.RAW


class TestZeroValue(CodecContract):
    name = CodecName.ZVC


class TestHuffman(CodecContract):
    name = CodecName.HUFFMAN

    def is_same_stream(self, codec, values, stream):
        """A value that has a code of its own may also be spelt behind the escape; nobody writes that."""
        return codec.encode(values) == stream or codec.code.escape > 0


class TestExpGolomb(CodecContract):
    name = CodecName.EG


class TestSparseExpGolomb(CodecContract):
    name = CodecName.SEG


def golomb(form: CodecName, k: int, bits: int = 16) -> ActivationCode:
    lengths = sparse_exp_golomb_lengths if form is CodecName.SEG else exp_golomb_lengths
    return ActivationCode(form, lengths(k, bits), k)


def bits_of(stream: bytes) -> str:
    return "".join(f"{byte:08b}" for byte in stream)


def test_every_codec_has_a_contract_test():
    tested = {contract.name for contract in CodecContract.__subclasses__()}
    assert tested == set(CODECS) == set(CodecName) - {CodecName.NONE}


@pytest.mark.parametrize(("k", "vectors"), SEG_VECTORS)
def test_sparse_exp_golomb_is_as_published(k, vectors):
    codec = open_codec(golomb(CodecName.SEG, k))
    for value, expected in vectors.items():
        assert bits_of(codec.encode(np.array([value], np.uint16))).rstrip("0") == expected.rstrip("0")
        assert codec.length_bits(np.array([value], np.uint16)) == len(expected)
    together = bits_of(codec.encode(np.array(list(vectors), np.uint16)))
    assert together.startswith("".join(vectors.values()))


def spelt(form: CodecName, k: int, value: int) -> str:
    """From the definition, in text."""
    if form is CodecName.SEG:
        return "1" if value == 0 else "0" + spelt(CodecName.EG, k, value - 1)
    v = (value >> k) + 1
    return "0" * (v.bit_length() - 1) + f"{v:b}" + (f"{value % 2**k:0{k}b}" if k else "")


@pytest.mark.parametrize("form", [CodecName.EG, CodecName.SEG])
@pytest.mark.parametrize("k", range(13))
def test_all_values_are_spelt_as_the_definition_says(form, k):
    values = np.random.default_rng(k).permutation(2**16).astype(np.uint16)
    codec = open_codec(golomb(form, k))
    expected = "".join(spelt(form, k, int(value)) for value in values)
    stream = codec.encode(values)
    assert bits_of(stream)[: len(expected)] == expected
    assert codec.length_bits(values) == len(expected)
    np.testing.assert_array_equal(codec.decode(stream, len(values)), values)


def test_sparse_codes_of_k_1_are_plain_ones_of_k_0():
    """So that a fit over all k has tried the plain code, which takes one bit for zero as well."""
    values = np.random.default_rng(0).permutation(2**16).astype(np.uint16)
    sparse, plain = (open_codec(golomb(form, k)) for form, k in ((CodecName.SEG, 1), (CodecName.EG, 0)))
    assert sparse.encode(values) == plain.encode(values)


def test_the_longest_code_has_more_bits_than_the_value():
    top = np.array([2**16 - 1], np.uint16)
    assert open_codec(golomb(CodecName.SEG, 0)).length_bits(top) == 32
    assert open_codec(golomb(CodecName.EG, 0)).length_bits(top) == 33
    assert open_codec(golomb(CodecName.SEG, 12)).length_bits(top) == 22


def test_zero_value_compression_puts_a_mask_before_the_values():
    values = np.zeros(40, np.uint8)
    values[[1, 31, 39]] = [5, 15, 9]
    codec = open_codec(fit_code(CodecName.ZVC, histogram(values, 4)))
    expected = f"01{'0' * 29}1" + "0101" + "1111" + "00000001" + "1001"
    assert bits_of(codec.encode(values)) == expected + "0" * (-len(expected) % 8)
    assert codec.length_bits(values) == 40 + 4 * 3 == len(expected)


def test_huffman_codes_of_rare_values_outgrow_the_tables():
    """Fibonacci's numbers make the longest codes there can be; values that were not seen have an escape and are raw."""
    counts = np.zeros(2**16, np.int64)
    fibonacci = [1, 1]
    while len(fibonacci) < 60:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    counts[: len(fibonacci)] = fibonacci
    codec = open_codec(fit_code(CodecName.HUFFMAN, counts))
    assert 16 < codec.code.lengths[: len(fibonacci)].max() <= 32
    assert codec.code.lengths.max() == codec.code.escape + 16 > 32
    values = np.random.default_rng(0).permutation(2**16).astype(np.uint16)
    stream = codec.encode(values)
    assert len(stream) == -(-codec.length_bits(values) // 8)
    np.testing.assert_array_equal(codec.decode(stream, len(values)), values)


def test_huffman_of_all_symbols_takes_about_their_entropy_in_real_bytes():
    values = np.concatenate([sparse_values(16, 200_000), np.arange(2**16, dtype=np.uint16)])
    counts = histogram(values, 16)
    codec = open_codec(fit_code(CodecName.HUFFMAN, counts))
    mean = 8 * len(codec.encode(values)) / len(values)
    assert codec.code.escape == 0
    assert entropy_bits(counts) <= mean < entropy_bits(counts) + 1


@pytest.mark.parametrize("k", [0, 3, 12])
@pytest.mark.parametrize("form", [CodecName.EG, CodecName.SEG])
def test_codes_of_values_that_are_too_large_are_damage(form, k):
    """A code of 17 bits' worth, in a stream that is long enough."""
    wide, narrow = open_codec(golomb(form, k)), open_codec(golomb(form, k, bits=12))
    stream = wide.encode(np.array([2**12], np.uint16))
    with pytest.raises(ValueError, match=f"no {form} stream"):
        narrow.decode(stream, 1)
    for zeros in range(2, 40):
        with pytest.raises(ValueError, match=f"no {form} stream"):
            wide.decode(bytes(zeros) + b"\x01", 1)


def test_memory_of_streams_may_be_a_view():
    values = sparse_values(8)
    codec = open_codec(fit_code(CodecName.SEG, histogram(values, 8)))
    stream = memoryview(b"##" + codec.encode(values))[2:]
    np.testing.assert_array_equal(codec.decode(stream, len(values)), values)


def test_nothing_is_compiled_before_a_stream_is_written():
    code = (
        "import sys, numpy as np\n"
        "from search_spaces.activation_codes import CodecName, fit_code\n"
        "from workers.codecs import open_codec\n"
        "codec = open_codec(fit_code(CodecName.HUFFMAN, np.arange(256)))\n"
        "codec.length_bits(np.arange(256, dtype=np.uint8))\n"
        "assert 'numba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
