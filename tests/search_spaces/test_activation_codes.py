"""What maps take in each code, told from histograms: closed forms and bounds."""

from __future__ import annotations

import heapq

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.activation_codes import (
    CodecName,
    bit_length,
    entropy_bits,
    exp_golomb_lengths,
    fit_code,
    huffman_lengths,
    sparse_exp_golomb_lengths,
)

CODES = [name for name in CodecName if name is not CodecName.NONE]
HISTOGRAMS = st.integers(1, 6).flatmap(
    lambda bits: st.lists(st.integers(0, 10**9) | st.integers(0, 3), min_size=2**bits, max_size=2**bits)
)


@pytest.mark.parametrize("k", range(13))
def test_lengths_of_sparse_exp_golomb_are_as_the_formula_says(k):
    """1 + k + 1 + 2 floor(log2((x - 1) / 2^k + 1)), and 1 of zero; whole blocks of values have one length."""
    x = np.arange(1, 2**16)
    closed = 1 + k + 1 + 2 * np.floor(np.log2((x - 1) / 2**k + 1)).astype(int)
    np.testing.assert_array_equal(sparse_exp_golomb_lengths(k, 16), [1, *closed])
    lengths, starts = np.unique(sparse_exp_golomb_lengths(k, 16)[1:], return_index=True)
    np.testing.assert_array_equal(lengths, k + 2 + 2 * np.arange(len(lengths)))
    np.testing.assert_array_equal(starts, 2**k * (2 ** np.arange(len(lengths)) - 1))


def test_bit_lengths():
    values = np.array([0, 1, 2, 3, 4, 2**16 - 1, 2**16, 2**16 + 1])
    assert bit_length(values).tolist() == [int(value).bit_length() for value in values]


@given(HISTOGRAMS)
def test_zero_value_compression_is_n_and_q_for_each_that_is_not_zero(counts):
    histogram = np.array(counts)
    code = fit_code(CodecName.ZVC, histogram)
    assert code.count_bits(histogram) == histogram.sum() + code.bits * histogram[1:].sum()
    assert fit_code(CodecName.RAW, histogram).count_bits(histogram) == code.bits * histogram.sum()


@given(HISTOGRAMS)
def test_huffman_is_optimal(counts):
    """By the textbook's heap, and by the entropy; Kraft's sum says that such codes exist."""
    histogram = np.array(counts)
    lengths = huffman_lengths(histogram)
    assert int(lengths @ histogram) == _merged_weight([count for count in counts if count])
    occurring = lengths[histogram > 0]
    if len(occurring) > 1:
        assert sum(2.0 ** -occurring.astype(float)) == 1
        mean = lengths @ histogram / histogram.sum()
        assert entropy_bits(histogram) - 1e-9 <= mean < entropy_bits(histogram) + 1
    else:
        assert not lengths.any()


def _merged_weight(weights: list[int]) -> int:
    heapq.heapify(weights)
    total = 0
    while len(weights) > 1:
        merged = heapq.heappop(weights) + heapq.heappop(weights)
        heapq.heappush(weights, merged)
        total += merged
    return total


def test_huffman_of_all_16_bit_values():
    counts = np.random.default_rng(0).integers(1, 10**6, 2**16)
    lengths = huffman_lengths(counts)
    assert sum(2.0**-lengths) == 1
    mean = lengths @ counts / counts.sum()
    assert entropy_bits(counts) <= mean < entropy_bits(counts) + 0.1


@given(HISTOGRAMS)
@settings(deadline=None)
def test_k_is_the_best_there_is(counts):
    histogram = np.array(counts)
    bits = len(counts).bit_length() - 1
    plain = [int(exp_golomb_lengths(k, bits) @ histogram) for k in range(bits + 3)]
    sparse = [int(sparse_exp_golomb_lengths(k, bits) @ histogram) for k in range(bits + 3)]
    assert fit_code(CodecName.EG, histogram).count_bits(histogram) == min(plain)
    assert fit_code(CodecName.SEG, histogram).count_bits(histogram) == min(sparse) <= plain[0]


@pytest.mark.parametrize("name", CODES)
def test_a_code_that_is_fitted_to_nothing_has_room_for_all(name):
    code = fit_code(name, np.zeros(2**10, np.int64))
    assert code.lengths.shape == (2**10,)
    assert code.lengths.min() >= 1
    assert code.bits == 10


def test_what_a_decoder_must_be_told_once():
    counts = np.array([7, 3, 0, 1])
    sides = {name: fit_code(name, counts).side_bits for name in CODES}
    assert sides == {"raw": 0, "zvc": 0, "huffman": 4 * 24, "eg": 8, "seg": 8}


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (np.zeros(3, int), "2 to 2"),
        (np.zeros(1, int), "2 to 2"),
        (np.zeros(2**17, int), "2 to 2"),
        (np.zeros((2, 2), int), "2 to 2"),
        (np.zeros(4), "whole numbers"),
        (np.array([1, -1]), "negative"),
    ],
)
def test_what_is_no_histogram_is_refused(counts, message):
    with pytest.raises(ValueError, match=message):
        fit_code(CodecName.SEG, counts)


def test_maps_as_they_are_have_no_code():
    with pytest.raises(ValueError, match="none is no code; fit one of raw, zvc"):
        fit_code(CodecName.NONE, np.ones(4, int))
