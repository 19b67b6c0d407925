"""Weights in few bits: closed forms of one and two bits, least error where it is promised, and grids that stay."""

from __future__ import annotations

from itertools import product

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays

from search_spaces.precision import CODEBOOK_BITS, FP32, WEIGHT_BITS, Precision
from search_spaces.spec import Calibration
from workers.onnx_quantize import quantise_weight
from workers.weight_grids import (
    find_in_codebook,
    fits_bits,
    from_grid,
    is_on_grid,
    make_codebook,
    quantised_weight,
    round_to_grid,
    weight_scales,
)

GRID_BITS = [bits for bits in WEIGHT_BITS if bits < 32]
PRECISIONS = [Precision(bits, 32) for bits in GRID_BITS] + [Precision(bits, 32, True) for bits in CODEBOOK_BITS]
WEIGHTS = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 6), st.integers(1, 12)), elements=st.floats(-8, 8, width=32)
)


def gaussian(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def squared_error(weight: np.ndarray, rounded: np.ndarray) -> float:
    return float(((weight.astype(np.float64) - rounded) ** 2).sum())


def in_bits(weight: np.ndarray, bits: int, method: Calibration = Calibration.MIN_MAX) -> np.ndarray:
    return quantised_weight(weight, Precision(bits, 32), method)


def test_one_bit_is_the_sign_times_the_mean_magnitude() -> None:
    rounded = in_bits(np.array([[0.5, -1.5, 1.0, 0.0], [2.0, 2.0, -2.0, -2.0]], np.float32), 1)
    np.testing.assert_array_equal(rounded, [[0.75, -0.75, 0.75, 0.75], [2.0, 2.0, -2.0, -2.0]])


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.float32, (1, 6), elements=st.floats(-4, 4, width=32)))
def test_two_bits_have_the_least_error_of_all_ternary_weights(weight: np.ndarray) -> None:
    """Every pattern of -1, 0, 1 with its own best scale is tried."""
    patterns = np.array(list(product([-1.0, 0.0, 1.0], repeat=6)))[:, :]
    dots, sizes = patterns @ weight[0].astype(np.float64), np.maximum((patterns**2).sum(axis=1), 1)
    least = float((weight.astype(np.float64) ** 2).sum() - (np.maximum(dots, 0) ** 2 / sizes).max())
    assert squared_error(weight, in_bits(weight, 2)) <= least + 1e-4 * max(1.0, float((weight**2).sum()))


@pytest.mark.parametrize("bits", [3, 4, 6, 8])
def test_max_reaches_the_peak_and_rounds_to_the_nearest(bits: int) -> None:
    weight = gaussian(7, 5, 3, 3)
    integers, scale = quantise_weight(weight, bits)
    assert (np.abs(integers.reshape(7, -1)).max(axis=1) == 2 ** (bits - 1) - 1).all()
    assert (np.abs(from_grid(integers, scale) - weight) <= scale.reshape(-1, 1, 1, 1) * 0.501).all()


@pytest.mark.parametrize("bits", [3, 4, 6, 8])
def test_least_squared_error_beats_the_peak_in_every_channel(bits: int) -> None:
    weight = gaussian(16, 300)
    errors = {
        method: ((in_bits(weight, bits, method) - weight) ** 2).sum(axis=1)
        for method in (Calibration.MIN_MAX, Calibration.MSE)
    }
    assert (errors[Calibration.MSE] <= errors[Calibration.MIN_MAX] * 1.0001).all()
    if bits == 3:
        assert errors[Calibration.MSE].sum() < 0.6 * errors[Calibration.MIN_MAX].sum()


def test_a_percentile_of_zeros_leaves_a_few_weights_what_they_are() -> None:
    weight = np.zeros((2, 5000), np.float32)
    weight[0, 3], weight[1] = 0.7, gaussian(5000)
    rounded = quantised_weight(weight, Precision(8, 8), Calibration.PERCENTILE)
    assert rounded[0, 3] == pytest.approx(0.7, rel=1e-4)
    assert np.array_equal(rounded, quantised_weight(rounded, Precision(8, 8)))


def test_a_percentile_lets_outliers_go() -> None:
    weight = gaussian(2, 5000)
    weight[0, 17] = 100.0
    kept, cut = (weight_scales(weight, 8, method) for method in (Calibration.MIN_MAX, Calibration.PERCENTILE))
    assert kept[0] == pytest.approx(100 / 127, rel=1e-4)
    assert cut[0] == pytest.approx(np.percentile(np.abs(weight[0]), 99.9) / 127, rel=1e-4)


@settings(max_examples=80, deadline=None)
@given(WEIGHTS, st.sampled_from(PRECISIONS), st.sampled_from(Calibration))
def test_weights_on_their_grid_stay_there_bit_for_bit(
    weight: np.ndarray, precision: Precision, method: Calibration
) -> None:
    rounded = quantised_weight(weight, precision, method)
    assert np.isfinite(rounded).all()
    assert is_on_grid(rounded, precision)
    again = quantised_weight(rounded, precision)
    np.testing.assert_allclose(again, rounded, rtol=0 if precision.weight_bits <= 8 else 2e-7)


@settings(max_examples=60, deadline=None)
@given(WEIGHTS, st.sampled_from(GRID_BITS))
def test_integers_fit_their_bits_and_dead_channels_stay_dead(weight: np.ndarray, bits: int) -> None:
    weight[0] = 0
    scales = weight_scales(weight, bits)
    integers = round_to_grid(weight, bits, scales)
    assert fits_bits(integers, bits)
    assert (integers[0] == 0).all()
    assert (scales > 0).all()


def test_wide_integers_do_not_fit_few_bits() -> None:
    assert not fits_bits(np.array([[7, -8]], np.int8), 4)
    assert not fits_bits(np.array([[1, 0]], np.int8), 1)
    assert fits_bits(np.array([[1, -1], [0, 0]], np.int8), 1)


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
def test_floats_off_a_grid_are_told(precision: Precision) -> None:
    weight = gaussian(8, 2000)
    assert not is_on_grid(weight, precision)
    assert is_on_grid(weight, FP32)


def test_a_codebook_of_separate_clusters_is_their_means() -> None:
    weight = np.array([[-1.1, -0.9, 3.0], [5.0, 4.8, -1.0]], np.float32)
    codebook = make_codebook(weight, 1)
    np.testing.assert_allclose(codebook, [-1.0, np.mean([3.0, 5.0, 4.8])], rtol=1e-6)
    np.testing.assert_array_equal(find_in_codebook(weight, codebook), [[0, 0, 1], [1, 1, 0]])


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_codebook_errs_less_than_even_levels(bits: int) -> None:
    weight = gaussian(1, 4000)
    codebook = make_codebook(weight, bits)
    assert len(codebook) == 2**bits
    even = np.linspace(weight.min(), weight.max(), 2**bits, dtype=np.float32)
    found, plain = (squared_error(weight, values[find_in_codebook(weight, values)]) for values in (codebook, even))
    assert found < plain
    if bits == 1:  # of a normal distribution, two centroids at +-sqrt(2 / pi)
        np.testing.assert_allclose(codebook, [-np.sqrt(2 / np.pi), np.sqrt(2 / np.pi)], atol=0.05)


def test_few_values_are_their_own_codebook_though_one_is_rare() -> None:
    weight = np.array([[0.0] * 50 + [1.0, -2.0, 0.5]], np.float32)
    assert set(make_codebook(weight, 2)) == {0.0, 1.0, -2.0, 0.5}
    assert len(make_codebook(np.zeros((2, 2), np.float32), 3)) == 8
