"""The fit of the balance model: constants that are known are found, and what cannot be fitted is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.accelerators.models import simulate
from search_spaces.cost_models.balance import Balance, GroupedConv, relative_errors
from search_spaces.network import InputContract, Network, Node, Op
from workers.balance_fit import fit_balance

SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
CONVS = [
    GroupedConv(256, 256, taps, pixels, pixels, size) for taps in (1, 9) for pixels in (196, 784) for size in SIZES
]


@settings(max_examples=30)
@given(st.floats(1e-6, 1e-3), st.floats(1e-12, 1e-9), st.floats(1e-10, 1e-8))
def test_constants_that_made_the_figures_are_found(overhead, per_mac, per_loss):
    truth = Balance(overhead, per_mac, per_loss)
    found = fit_balance([(conv, truth.value(conv)) for conv in CONVS])
    assert found.per_mac == pytest.approx(per_mac, rel=1e-4)
    assert max(relative_errors(found, [(conv, truth.value(conv)) for conv in CONVS])) < 1e-4


def test_noise_of_two_percent_moves_the_best_size_by_less_than_an_octave():
    truth, noise = Balance(2e-5, 2e-11, 4e-8), np.random.default_rng(0)
    measured = [(conv, truth.value(conv) * float(noise.normal(1, 0.02))) for conv in CONVS]
    found = fit_balance(measured)
    assert found.best_group_size(9) / truth.best_group_size(9) == pytest.approx(1, abs=0.2)
    assert np.median(relative_errors(found, measured)) < 0.03


def test_no_constant_is_negative_and_falling_figures_have_no_cost_of_work():
    found = fit_balance([(conv, 1e-3 / conv.group_size) for conv in CONVS if conv.taps == 9 and conv.pixels == 196])
    assert found.per_mac == 0
    assert min(found.overhead, found.per_loss) >= 0


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_figure_that_is_none_is_refused(value):
    measured = [(conv, 1.0) for conv in CONVS[:7]] + [(CONVS[7], value)]
    with pytest.raises(ValueError, match="above 0"):
        fit_balance(measured)


def test_two_group_sizes_are_too_few():
    with pytest.raises(ValueError, match="at least 3 group sizes"):
        fit_balance([(conv, 1.0) for conv in CONVS if conv.group_size in (1, 2)])


def test_energy_that_is_a_sum_of_work_and_traffic_only_grows_with_the_group_size():
    """A simulated graphics processor has no loss of its own at small groups: it would always take depthwise."""
    measured = []
    for conv in (conv for conv in CONVS if conv.taps == 9 and conv.pixels == 196):
        groups = conv.inputs // conv.group_size
        nodes = (
            Node("input", Op.INPUT),
            Node("conv", Op.CONV, ("input",), conv.outputs, (3, 3), padding=(1,) * 4, groups=groups),
        )
        contract = InputContract((conv.inputs, 14, 14), (0.5,) * conv.inputs, (0.5,) * conv.inputs)
        figures = simulate("roofline-p100", Network("one", contract, nodes, "conv"))
        measured.append((conv, figures["energy_j"]))
    found = fit_balance(measured)
    assert found.best_of(SIZES, 9) == 1
    assert max(relative_errors(found, measured)) < 0.1
