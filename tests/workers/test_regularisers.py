"""Closed forms and limits of the losses of weights, in double precision where derivatives are compared."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from search_spaces.spec import RegulariserName
from workers.regularisers import (
    UNIFORM_KURTOSIS,
    WeightLoss,
    kure,
    l_inf,
    margin,
    soft_min_max,
)

SHAPES = [(6, 4, 3, 3), (8, 1, 3, 3), (10, 12)]


def normal(shape: tuple[int, ...], seed: int = 0, std: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * std).requires_grad_()


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


def variance_under(weights: Tensor, temperature: float) -> Tensor:
    flat = weights.detach().flatten()
    shares = torch.softmax(temperature * flat, 0)
    return (shares * flat.square()).sum() - (shares * flat).sum().square()


def range_term(weights: Tensor, temperature: float) -> float:
    a = torch.tensor(temperature, dtype=weights.dtype)
    return float(soft_min_max(weights.detach(), a) - torch.exp(-a))


# --- derivatives ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("is_channels_last", [False, True])
def test_derivatives_are_finite_differences(shape, is_channels_last):
    weights = normal(shape)
    if is_channels_last and len(shape) == 4:
        weights = weights.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    assert torch.autograd.gradcheck(soft_min_max, (weights, number(0.7)))
    assert torch.autograd.gradcheck(kure, (weights,))
    assert torch.autograd.gradcheck(l_inf, (weights,))
    assert torch.autograd.gradcheck(margin, (weights, number(0.9)))
    assert torch.autograd.gradcheck(margin, (weights, number(-0.9)))


@settings(deadline=None)  # the first gradient takes long
@given(st.floats(-3, 20), st.integers(0, 100), st.floats(0.01, 3))
def test_the_temperature_is_pulled_by_the_variances_and_pushed_by_its_own_term(temperature, seed, std):
    weights, a = normal((5, 3, 3, 3), seed, std), number(temperature)
    soft_min_max(weights, a).backward()
    expected = variance_under(weights, temperature) + variance_under(weights, -temperature) - torch.exp(-a.detach())
    assert a.grad is not None
    torch.testing.assert_close(a.grad, expected, rtol=1e-7, atol=1e-9)


def test_soft_extremes_move_out_with_the_temperature_by_the_variances():
    weights, step = normal((4, 5)), 1e-5
    slope = (range_term(weights, 2 + step) - range_term(weights, 2 - step)) / (2 * step)
    assert slope == pytest.approx(float(variance_under(weights, 2.0) + variance_under(weights, -2.0)), rel=1e-6)
    # Of weights that lie evenly around zero each extreme is half of the range.
    even = torch.cat([weights, -weights])
    slope = (range_term(even, 2 + step) - range_term(even, 2 - step)) / (2 * step)
    assert slope / 2 == pytest.approx(float(variance_under(even, 2.0)), rel=1e-6)


@settings(deadline=None)
@given(st.floats(0.0, 4.0), st.integers(0, 100), st.sampled_from([-1.0, 1.0]))
def test_the_margin_is_pushed_out_by_every_weight_outside(size, seed, sign):
    weights, bound = normal((6, 7), seed), number(sign * size)
    margin(weights, bound).backward()
    outside = int((weights.abs() > size).sum())
    assert bound.grad is not None
    assert float(bound.grad) == pytest.approx((1 - outside) * (sign if size else 0.0))


def test_only_the_largest_weight_feels_the_largest_magnitude_and_ties_share_it():
    weights = torch.tensor([0.5, -3.0, 2.0], requires_grad=True)
    l_inf(weights).backward()
    assert weights.grad is not None
    assert weights.grad.tolist() == [0.0, -1.0, 0.0]
    tied = torch.tensor([3.0, -3.0, 1.0], requires_grad=True)
    l_inf(tied).backward()
    assert tied.grad is not None
    assert tied.grad.tolist() == [0.5, -0.5, 0.0]


# --- limits -----------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_soft_extremes_are_the_mean_at_zero_and_the_hard_ones_at_infinity(seed):
    weights = normal((40,), seed).detach()
    hard = float(weights.max() - weights.min())
    assert range_term(weights, 0.0) == pytest.approx(0.0, abs=1e-12)
    assert range_term(weights, 1e6) == pytest.approx(hard, rel=1e-6)
    ranges = [range_term(weights, a) for a in (0.1, 1.0, 10.0, 100.0)]
    assert ranges == sorted(ranges)
    assert ranges[-1] <= hard * (1 + 1e-12)


@settings(deadline=None)
@given(st.floats(-100, 100), st.integers(0, 100))
def test_only_soft_min_max_does_not_see_a_shift(shift, seed):
    weights = normal((30,), seed).detach()
    assert range_term(weights + shift, 2.0) == pytest.approx(range_term(weights, 2.0), rel=1e-9)
    far = weights.abs() + 1 + abs(shift)
    assert l_inf(far + 1) == pytest.approx(float(l_inf(far)) + 1)
    bound = torch.tensor(0.5, dtype=torch.float64)
    assert margin(far + 1, bound) == pytest.approx(float(margin(far, bound)) + 30)


def test_single_precision_holds_out_at_any_scale():
    for scale in (1e-12, 1e-3, 1.0, 1e4):
        weights = (normal((50,)).detach() * scale).float().requires_grad_()
        a = torch.tensor(50.0, requires_grad=True)
        loss = soft_min_max(weights, a) + kure(weights) + margin(weights, a) + l_inf(weights)
        loss.backward()
        assert weights.grad is not None
        assert torch.isfinite(weights.grad).all()
        assert kure(weights).item() == pytest.approx(kure(normal((50,))).item(), rel=1e-3)


def test_the_kurtosis_of_uniform_weights_is_where_it_should_be():
    count = 100_001
    even = torch.linspace(-0.3, 0.3, count, dtype=torch.float64).requires_grad_()
    loss = kure(even)
    loss.backward()
    assert even.grad is not None
    assert loss.item() < 1e-8
    assert float(even.grad.abs().sum()) < 1e-3
    # A normal distribution's is 3: by six standard errors of the kurtosis, sqrt(24 / n).
    drawn = float(kure(normal((count,)).detach())) ** 0.5 + UNIFORM_KURTOSIS
    assert drawn == pytest.approx(3.0, abs=6 * (24 / count) ** 0.5)


@pytest.mark.parametrize("weights", [torch.zeros(8, 1, 3, 3), torch.full((3, 3), 0.1), torch.ones(1, 1, 1, 1)])
@pytest.mark.parametrize("name", RegulariserName)
def test_equal_weights_have_finite_losses_and_gradients(name, weights):
    weights = weights.clone().requires_grad_()
    loss = WeightLoss(name, {"layer": weights})
    value = loss()
    value.backward()
    assert torch.isfinite(value)
    assert weights.grad is not None
    assert torch.isfinite(weights.grad).all()
    if name is RegulariserName.KURE:
        assert value.item() == pytest.approx(UNIFORM_KURTOSIS**2)
        assert not weights.grad.any()


# --- over layers ------------------------------------------------------------------------------------------------


def layers() -> dict[str, Tensor]:
    made = {f"layer{place}": normal(shape, place, 0.1).float() for place, shape in enumerate(SHAPES)}
    return {name: weights.detach().requires_grad_() for name, weights in made.items()}


def test_the_loss_is_the_sum_over_layers_and_what_is_learned_begins_as_stated():
    weights = layers()
    each = list(weights.values())
    by_margin, by_range = (WeightLoss(name, weights) for name in (RegulariserName.MARGIN, RegulariserName.SOFT_MIN_MAX))
    assert WeightLoss(RegulariserName.L_INF, weights)().item() == pytest.approx(sum(l_inf(one).item() for one in each))
    assert WeightLoss(RegulariserName.KURE, weights)().item() == pytest.approx(sum(kure(one).item() for one in each))
    bounds = [2 * one.std(correction=0) for one in each]
    assert by_margin().item() == pytest.approx(
        sum(margin(one, bound).item() for one, bound in zip(each, bounds, strict=True))
    )
    assert by_margin.report()["margin"] == pytest.approx(
        {name: bound.item() for name, bound in zip(weights, bounds, strict=True)}
    )
    assert by_range.report() == {"temperature": pytest.approx(dict.fromkeys(weights, 0.1))}
    assert WeightLoss(RegulariserName.L_INF, weights).report() == {}


def test_a_bound_never_moves_by_more_than_one_weight_does():
    weights = layers()
    loss = WeightLoss(RegulariserName.MARGIN, weights)
    assert loss.learned is not None
    (0.01 * loss()).backward()
    assert loss.learned.grad is not None
    assert loss.learned.grad.min() < -0.02
    loss.limit_step(0.01)
    assert loss.learned.grad.tolist() == pytest.approx([-0.01] * len(weights))


def test_temperatures_do_not_fall_below_the_first():
    loss = WeightLoss(RegulariserName.SOFT_MIN_MAX, layers())
    assert loss.learned is not None
    loss.learned.data.copy_(torch.tensor([-3.0, 0.05, 7.0]))
    loss.limit_values()
    assert loss.learned.tolist() == pytest.approx([0.1, 0.1, 7.0])
