"""The balance of work and reuse: its closed forms, and what it says of constant group sizes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.catalog import build_network
from search_spaces.cost_models.balance import Balance, GroupedConv, conv_in, grouped_convs, relative_errors
from search_spaces.costs import layer_costs, workloads
from search_spaces.network import InputContract, Network, Node, Op
from search_spaces.signatures import SignatureError, layer_of
from search_spaces.spec import NetworkSpec

CONSTANTS = st.floats(1e-3, 1e3)
TAPS = st.sampled_from([1, 9, 25])


def square(channels: int, group_size: int, taps: int = 9, pixels: int = 196) -> GroupedConv:
    """As many channels in as out, stride 1."""
    return GroupedConv(channels, channels, taps, pixels, pixels, group_size)


def chain(widths: list[int], group_size: int) -> Network:
    """A 3x3 conv of constant group size for each width, behind a pointwise one."""
    nodes = [Node("input", Op.INPUT)]
    for number, width in enumerate(widths):
        nodes.append(Node(f"point{number}", Op.CONV, (nodes[-1].name,), channels=width))
        groups = width // group_size
        nodes.append(Node(f"conv{number}", Op.CONV, (nodes[-1].name,), width, (3, 3), padding=(1,) * 4, groups=groups))
    return Network("chain", InputContract((3, 14, 14), (0.5,) * 3, (0.5,) * 3), tuple(nodes), nodes[-1].name)


@given(st.lists(st.integers(2, 40), min_size=2, max_size=4), st.sampled_from([1, 2, 4, 8]))
def test_at_constant_group_size_every_width_reuses_alike(multiples, group_size):
    network = chain([multiple * group_size for multiple in multiples], group_size)
    found = [conv.arithmetic_intensity for conv in grouped_convs(network).values()]
    closed_form = 1 / (1 / 196 + 2 / (9 * group_size))
    assert found == [pytest.approx(closed_form, rel=1e-12)] * len(multiples)


@pytest.mark.parametrize("family", ["mobilenet_v1", "resnext_50", "shufflenet_v2"])
def test_sizes_are_those_that_costs_tells(family):
    spec = NetworkSpec(family=family, input=(3, 64, 64))
    network = build_network(spec, 10, (0.5,) * 3, (0.5,) * 3)
    costs = {layer.name: layer for layer in layer_costs(network)}
    convs = grouped_convs(network)
    assert len(convs) >= 13
    for name, conv in convs.items():
        assert conv.macs == costs[name].macs
        assert conv.parameters == costs[name].parameters
        assert conv.activations == costs[name].input_elements + costs[name].output_elements
        assert conv.arithmetic_intensity == pytest.approx(costs[name].arithmetic_intensity, rel=1e-12)
        assert 1 / conv.arithmetic_intensity == pytest.approx(1 / conv.pixels + conv.reuse_loss, rel=1e-12)


@given(CONSTANTS, CONSTANTS, TAPS)
def test_the_closed_form_is_the_least_value(per_mac, per_loss, taps):
    balance = Balance(0.0, per_mac, per_loss)
    best = balance.best_group_size(taps)

    def objective(size: float) -> float:
        return per_mac * taps * size + per_loss * 2 / (taps * size)

    assert objective(best) == pytest.approx(2 * math.sqrt(2 * per_mac * per_loss), rel=1e-9)
    assert all(objective(best) <= objective(best * factor) * (1 + 1e-12) for factor in (0.5, 0.9, 1.1, 2))
    choices = [2**power for power in range(12)]
    chosen = balance.best_of(choices, taps)
    assert objective(chosen) == min(map(objective, choices))
    nearest = min(abs(math.log(size / best)) for size in choices)
    assert abs(math.log(chosen / best)) == pytest.approx(nearest, abs=1e-9)


def test_the_reference_ratio_of_memory_to_arithmetic_wants_about_two_channels():
    assert Balance(0.0, 1.0, 200.0).best_group_size(taps=9) == pytest.approx(2.222, abs=1e-3)
    assert Balance(0.0, 1.0, 200.0).best_of((1, 2, 4, 8), taps=9) == 2


def test_without_a_cost_of_work_groups_cannot_be_too_large_nor_without_one_of_reuse_too_small():
    assert Balance(1.0, 0.0, 2.0).best_group_size(taps=9) == math.inf
    assert Balance(1.0, 2.0, 0.0).best_group_size(taps=9) == 0
    assert (Balance(1.0, 0.0, 2.0).best_of((1, 2, 4), 9), Balance(1.0, 2.0, 0.0).best_of((4, 2, 1), 9)) == (4, 1)


@given(CONSTANTS, st.integers(0, 5), st.sampled_from([64, 128, 256]))
def test_a_value_is_overhead_plus_the_objective_for_each_output(per_mac, power, channels):
    balance, conv = Balance(3.0, per_mac, 5.0), square(channels, 2**power)
    objective = per_mac * 9 * 2**power + 5.0 * 2 / (9 * 2**power)
    assert balance.value(conv) == pytest.approx(3.0 + channels * 196 * objective, rel=1e-9)
    assert relative_errors(balance, [(conv, 2 * balance.value(conv))]) == [pytest.approx(0.5)]


@given(
    st.lists(st.tuples(st.integers(1, 1000), st.floats(0.25, 64.0)), min_size=2, max_size=8),
    st.sampled_from([0.0, 1e-3, 1.0]),
    CONSTANTS,
)
def test_at_equal_macs_equal_group_sizes_cost_least(layers, per_mac, per_loss):
    """Jensen: the objective is convex in G and the same for all layers, so spreading G around its mean never pays."""
    balance = Balance(0.0, per_mac, per_loss)
    mean = sum(width * size for width, size in layers) / sum(width for width, _ in layers)
    growing = [square(width, size, pixels=1) for width, size in layers]
    constant = [replace(conv, group_size=mean) for conv in growing]
    assert sum(conv.macs for conv in constant) == pytest.approx(sum(conv.macs for conv in growing), rel=1e-9)
    assert sum(map(balance.value, constant)) <= sum(map(balance.value, growing)) * (1 + 1e-9)


def test_constant_size_loses_less_than_constant_number_at_equal_macs():
    """Four stages, each half as many pixels and twice as wide: g = 16 is G = 4, 8, 16 and 32, in the mean 15."""
    growing = [square(width, width // 16, pixels=28 * 512 // width) for width in (64, 128, 256, 512)]
    constant = [replace(conv, group_size=15) for conv in growing]
    assert sum(conv.macs for conv in constant) == sum(conv.macs for conv in growing)
    ratio = sum(conv.reuse_loss for conv in constant) / sum(conv.reuse_loss for conv in growing)
    assert ratio == pytest.approx((4 / 15) / (1 / 4 + 1 / 8 + 1 / 16 + 1 / 32))


def test_a_conv_is_read_from_the_signatures_of_the_measurement_database():
    network = build_network(
        NetworkSpec(family="mobilenet_v1", width=0.5, input=(3, 32, 32)), 10, (0.5,) * 3, (0.5,) * 3
    )
    expected = grouped_convs(network)
    operators = {one.name: one for one in workloads(network)}
    for name, conv in expected.items():
        assert conv_in(operators[name].signature) == conv
        assert conv_in(layer_of(operators[name]).signature) == conv
    assert conv_in(operators["pool"].signature) is None
    assert conv_in(operators["classifier"].signature) is None
    with pytest.raises(SignatureError):
        conv_in("{}")
