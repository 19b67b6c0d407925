"""Gradients through rounding against their published formulas, written out element by element in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.spec import Estimator
from workers.quantisation_aware.estimators import (
    Levels,
    lsq_step_share,
    round_to_grid,
    to_integers,
    weight_levels,
)

UNSIGNED = Levels(0, 15)
SIGNED = Levels(-7, 7)
SKEWED = Levels(-5, 10)
BINARY = weight_levels(1)
ALL_LEVELS = [UNSIGNED, SIGNED, SKEWED, BINARY, weight_levels(2)]


def draw(levels: Levels, count: int = 400, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values inside and beyond the grid, a step, and what is sent back."""
    generator = torch.Generator().manual_seed(seed)
    step = torch.tensor(0.3, dtype=torch.float64)
    span = 1.5 * levels.largest * step
    values = (torch.rand(count, generator=generator, dtype=torch.float64) * 2 - 1) * span
    gradient = torch.randn(count, generator=generator, dtype=torch.float64)
    return values, step, gradient


def gradients(
    levels: Levels, estimator: Estimator, delta: float = 1e-3, share: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor | None]:
    values, step, gradient = draw(levels)
    values.requires_grad_()
    step.requires_grad_()
    round_to_grid(values, step, levels, estimator, share, delta).backward(gradient)
    assert values.grad is not None
    return values.grad, step.grad


def is_inside(levels: Levels) -> np.ndarray:
    values, step, _ = draw(levels)
    scaled = (values / step).numpy()
    inside = (levels.lowest < scaled) & (scaled < levels.highest)
    assert 0 < inside.sum() < len(inside)  # otherwise there would be nothing to tell apart
    return inside


@pytest.mark.parametrize("levels", ALL_LEVELS)
@pytest.mark.parametrize("estimator", [Estimator.STE, Estimator.LSQ, Estimator.PACT])
def test_values_get_the_gradient_where_nothing_is_clipped(levels, estimator):
    expected = np.where(is_inside(levels), draw(levels)[2], 0.0)
    np.testing.assert_array_equal(gradients(levels, estimator)[0], expected)


@pytest.mark.parametrize("levels", ALL_LEVELS)
def test_the_step_of_lsq_gets_the_published_gradient(levels):
    """LSQ, equation 3: round(v/s) - v/s where nothing is clipped, else the bound that is clipped to."""
    values, step, gradient = (tensor.numpy() for tensor in draw(levels))
    expected = 0.0
    for value, sent_back in zip(values, gradient, strict=True):
        scaled = value / step
        if scaled <= levels.lowest:
            factor = float(levels.lowest)
        elif scaled >= levels.highest:
            factor = float(levels.highest)
        elif levels.is_binary:
            factor = (1.0 if scaled >= 0 else -1.0) - scaled
        else:
            factor = float(np.rint(scaled)) - scaled
        expected += sent_back * factor
    of_step = gradients(levels, Estimator.LSQ, share=0.25)[1]
    assert of_step is not None
    np.testing.assert_allclose(of_step, 0.25 * expected, rtol=1e-10)


@pytest.mark.parametrize("levels", ALL_LEVELS)
def test_ewgs_scales_each_gradient_by_its_distance_from_the_level(levels):
    """EWGS: g (1 + delta sign(g) (x_n - x_q)) with both normalised to a width of one."""
    values, step, gradient = draw(levels)
    width = levels.highest - levels.lowest
    distance = (values / step - to_integers(values, step, levels)) / width
    expected = np.where(is_inside(levels), gradient * (1 + 0.4 * gradient.sign() * distance), 0.0)
    np.testing.assert_allclose(gradients(levels, Estimator.EWGS, delta=0.4)[0], expected, rtol=1e-12)


@pytest.mark.parametrize("levels", ALL_LEVELS)
def test_ewgs_without_delta_is_the_straight_through_estimator(levels):
    of_values, of_step = gradients(levels, Estimator.EWGS, delta=0.0)
    np.testing.assert_array_equal(of_values, gradients(levels, Estimator.STE)[0])
    np.testing.assert_array_equal(of_step, gradients(levels, Estimator.LSQ)[1])


def test_the_clip_of_pact_gets_the_gradient_of_what_is_clipped_and_no_other():
    """PACT, equation 3: 1 for values of at least the clip, 0 below."""
    values = torch.tensor([-1.0, 0.0, 0.7, 5.9, 6.0, 6.1, 40.0], dtype=torch.float64)
    clip = torch.tensor(6.0, dtype=torch.float64, requires_grad=True)
    rounded = round_to_grid(values, clip / UNSIGNED.highest, UNSIGNED, Estimator.PACT)
    of_each = [torch.autograd.grad(value, clip, retain_graph=True)[0].item() for value in rounded]
    np.testing.assert_allclose(of_each, [0, 0, 0, 0, 1, 1, 1], atol=1e-12)


def test_gradients_are_those_of_finite_differences_where_the_function_is_smooth():
    """Beyond the grid it is a multiple of the step, and constant in the values: no estimator may differ there."""
    values = torch.tensor([-9.0, -6.5, 5.5, 31.0], dtype=torch.float64, requires_grad=True)
    step = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    for estimator in (Estimator.LSQ, Estimator.EWGS, Estimator.PACT):
        assert torch.autograd.gradcheck(lambda v, s, e=estimator: round_to_grid(v, s, SKEWED, e), (values, step))


def test_each_channel_has_a_step_of_its_own():
    weight = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(4, 6)
    steps = torch.tensor([[0.05], [0.1], [0.2], [0.4]], dtype=torch.float64, requires_grad=True)
    gradient = torch.arange(24, dtype=torch.float64).reshape(4, 6)
    round_to_grid(weight, steps, SIGNED, Estimator.LSQ).backward(gradient)
    for row in range(4):
        step = steps[row, 0].detach().requires_grad_()
        round_to_grid(weight[row], step, SIGNED, Estimator.LSQ).backward(gradient[row])
        np.testing.assert_allclose(steps.grad[row, 0], step.grad)


@given(
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=40),
    st.floats(2**-10, 8, width=32),
    st.sampled_from(ALL_LEVELS),
)
def test_every_value_goes_to_the_nearest_point_of_the_grid(values, step, levels):
    array = torch.tensor(values, dtype=torch.float64)
    rounded = round_to_grid(array, torch.tensor(step, dtype=torch.float64), levels, Estimator.STE)
    grid = np.arange(levels.lowest, levels.highest + 1, 2 if levels.is_binary else 1) * step
    nearest = np.abs(array.numpy()[:, None] - grid).min(axis=1)
    np.testing.assert_allclose((array - rounded).abs().numpy(), nearest, atol=1e-9)
    assert np.isin(np.rint(rounded.numpy() / step), np.rint(grid / step)).all()


def test_ties_go_to_the_even_integer_as_in_onnx_runtime():
    halves = torch.tensor([0.5, 1.5, 2.5, 3.5, -0.5, -1.5])
    assert to_integers(halves, torch.tensor(1.0), SIGNED).tolist() == [0, 2, 2, 4, 0, -2]


def test_levels_of_weights_are_symmetric():
    assert [(weight_levels(bits).lowest, weight_levels(bits).highest) for bits in (1, 2, 4, 8)] == [
        (-1, 1),
        (-1, 1),
        (-7, 7),
        (-127, 127),
    ]
    assert weight_levels(1).is_binary
    assert not weight_levels(2).is_binary


def test_the_share_of_a_step_is_one_over_the_root_of_values_times_levels():
    assert lsq_step_share(100, UNSIGNED) == pytest.approx((100 * 15) ** -0.5)
