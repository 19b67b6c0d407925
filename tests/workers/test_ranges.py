"""Ranges told from samples: least error where it is promised, and nothing that a grid cannot take."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays

from search_spaces.spec import Calibration
from workers.onnx_quantize import TensorRange, activation_grid
from workers.ranges import range_of_sample


def gaussian(mean: float = 0.3, count: int = 40_000) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal(count) + mean).astype(np.float32)


SAMPLES = {
    "behind a relu": np.maximum(gaussian(0.0), 0),
    "of both signs": gaussian(),
    "with a long tail": np.maximum(np.random.default_rng(1).standard_t(3, 40_000), 0).astype(np.float32),
    "below zero": -np.abs(gaussian()) - 1,
}


def squared_error(sample: np.ndarray, found: TensorRange, bits: int) -> float:
    grid = activation_grid(found, bits)
    integers = np.clip(np.rint(sample / grid.scale) + grid.zero_point, 0, grid.top)
    return float((((integers - grid.zero_point) * grid.scale - sample) ** 2).mean())


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES.keys())
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_no_drawn_in_range_errs_less_than_the_one_of_least_error(sample: np.ndarray, bits: int) -> None:
    found = squared_error(sample, range_of_sample(sample, bits, Calibration.MSE), bits)
    whole = range_of_sample(sample, bits, Calibration.MIN_MAX)
    others = [squared_error(sample, (whole[0] * part, whole[1] * part), bits) for part in np.linspace(0.02, 1, 99)]
    assert found <= 1.05 * min(others)  # ranges are tried in steps of 7%, errors are told from a histogram


@pytest.mark.parametrize("method", [Calibration.MSE, Calibration.KL, Calibration.PERCENTILE])
def test_outliers_do_not_stretch_the_range(method: Calibration) -> None:
    sample = np.abs(gaussian(0.0))
    sample[:3] = 60.0
    low, high = range_of_sample(sample, 4, method)
    assert low == pytest.approx(0.0, abs=0.01)
    assert 1.0 < high < 10.0


def test_divergence_keeps_what_few_levels_can_tell_of_even_values() -> None:
    """Even values lose nothing by levels as wide as their range, and much by being cut off."""
    sample = np.random.default_rng(0).uniform(0, 5, 100_000).astype(np.float32)
    assert range_of_sample(sample, 4, Calibration.KL)[1] == pytest.approx(5.0, rel=0.1)


def test_zeros_do_not_count() -> None:
    """Most of what comes out of a relu is zero, which every grid has exactly."""
    sample = np.abs(gaussian())
    with_zeros = np.concatenate([sample, np.zeros(10 * len(sample), np.float32)])
    for method in (Calibration.MSE, Calibration.KL):
        assert range_of_sample(with_zeros, 4, method) == range_of_sample(sample, 4, method)


@settings(max_examples=80, deadline=None)
@given(
    arrays.arrays(np.float32, st.integers(1, 30), elements=st.floats(-1e6, 1e6, width=32)),
    st.sampled_from([2, 4, 8]),
    st.sampled_from(Calibration),
)
def test_any_values_give_a_range_that_a_grid_takes(sample: np.ndarray, bits: int, method: Calibration) -> None:
    low, high = range_of_sample(sample, bits, method)
    assert min(float(sample.min()), 0) <= low <= high <= max(float(sample.max()), 0)
    grid = activation_grid((low, high), bits)
    assert grid.scale > 0
    if method is not Calibration.PERCENTILE and sample.min() >= 0:
        assert grid.zero_point == 0
