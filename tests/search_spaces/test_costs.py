"""Costs against published counts, closed forms and the conventions that `costs` states."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search_spaces.apply import apply
from search_spaces.catalog import build_network
from search_spaces.costs import (
    activation_traffic_bytes,
    fused_operators,
    layer_costs,
    macs,
    parameters,
    peak_activation_bytes,
    size_bytes,
    symbolic_values,
    tensor_bits,
    workloads,
)
from search_spaces.design import Design
from search_spaces.network import InputContract, Network, Node, Op, infer_shapes
from search_spaces.objectives import SYMBOLIC_METRICS
from search_spaces.precision import parse_precision
from search_spaces.spec import NetworkSpec
from tests.random_networks import designs, networks

FP32, W8A8, W4A32, W32A8 = (parse_precision(text) for text in ("fp32", "w8a8", "w4a32", "w32a8"))


@pytest.fixture(scope="module")
def mobilenet():
    return build_network(NetworkSpec(family="mobilenet_v1", input=(3, 224, 224)), 1000, (0.5,) * 3, (0.5,) * 3)


def depthwise_widths(network):
    return {node.name: node.channels for node in network.compute_nodes() if node.name.endswith("depthwise")}


def grouped_row(network, group_sizes):
    """(M MACs, M parameters, least and greatest arithmetic intensity of the grouped layers)."""
    grouped = apply(network, Design.of({f"group_size/{name}": size for name, size in group_sizes.items()}))
    intensities = [layer.arithmetic_intensity for layer in layer_costs(grouped) if layer.name in group_sizes]
    return macs(grouped) / 1e6, parameters(grouped) / 1e6, min(intensities), max(intensities)


def test_mobilenet_v1_has_the_published_counts(mobilenet):
    assert macs(mobilenet) == 568_740_352
    assert parameters(mobilenet) == 4_209_088


@pytest.mark.parametrize(
    ("group_size", "expected"),
    [
        (1, (568.7, 4.209, 1.74, 4.50)),
        (2, (586.1, 4.254, 3.35, 8.99)),
        (4, (620.9, 4.343, 6.28, 17.97)),
        (8, (690.4, 4.522, 11.1, 35.9)),
        (16, (829.5, 4.879, 18.1, 71.6)),
        (32, (1107.7, 5.593, 26.5, 142)),
    ],
)
def test_constant_group_size_has_the_reference_counts(mobilenet, group_size, expected):
    row = grouped_row(mobilenet, dict.fromkeys(depthwise_widths(mobilenet), group_size))
    assert row == pytest.approx(expected, rel=3e-3), f"G={group_size}: expected {expected}, got {row}"
    assert row[:2] == pytest.approx(expected[:2], rel=2e-4)


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (128, (588.4, 4.361, 1.80, 20.8)),
        (64, (620.0, 4.557, 1.80, 30.4)),
        (32, (685.0, 4.949, 3.60, 52.7)),
        (16, (818.7, 5.734, 7.18, 83.0)),
        (8, (1086.0, 7.304, 14.3, 122)),
    ],
)
def test_constant_number_of_groups_has_the_reference_counts(mobilenet, groups, expected):
    sizes = {name: max(1, width // groups) for name, width in depthwise_widths(mobilenet).items()}
    row = grouped_row(mobilenet, sizes)
    assert row == pytest.approx(expected, rel=3e-3), f"g={groups}: expected {expected}, got {row}"
    assert row[:2] == pytest.approx(expected[:2], rel=2e-4)


@pytest.mark.parametrize(
    ("stem", "pointwise", "expected_macs"),
    [
        (24, (48, 96, 80, 192, 200, 328, 352, 368, 360, 328, 400, 736, 752), 293_870_000),
        (16, (48, 88, 80, 192, 168, 336, 360, 360, 352, 352, 368, 768, 680), 273_976_912),
    ],
    ids=["50% FLOPs", "50% time"],
)
def test_released_amc_strategies_cost_what_their_models_cost(mobilenet, stem, pointwise, expected_macs):
    channels = {f"channels/block{number}.pointwise": kept for number, kept in enumerate(pointwise, start=1)}
    pruned = apply(mobilenet, Design.of({"channels/stem": stem, **channels}))
    assert macs(pruned) == pytest.approx(expected_macs, abs=5_000)


def test_vgg_13_has_2944_filters():
    network = build_network(NetworkSpec(family="vgg_13", input=(3, 32, 32)), 10, (0.5,) * 3, (0.5,) * 3)
    assert sum(node.channels for node in network.nodes if node.op is Op.CONV) == 2_944


def test_resnet_56_costs_the_papers_network_and_two_projections():
    network = build_network(NetworkSpec(family="resnet_56", input=(3, 32, 32)), 10, (0.5,) * 3, (0.5,) * 3)
    convs = 3 * 9 * 16 + 18 * 9 * 16 * 16 + 9 * 16 * 32 + 17 * 9 * 32 * 32 + 9 * 32 * 64 + 17 * 9 * 64 * 64
    projections = 16 * 32 + 32 * 64
    assert parameters(network) == convs + projections + 64 * 10
    assert len([node for node in network.nodes if node.op is Op.CONV]) == 55 + 2


def small(precision=FP32, second=None):
    """conv 3 -> 4 (3x3, folded norm, relu) -> conv 4 -> 2 (1x1, no bias) -> flatten -> linear 32 -> 5 (bias)."""
    nodes = (
        Node("input", Op.INPUT),
        Node("a", Op.CONV, ("input",), 4, (3, 3), (1, 1), (1, 1, 1, 1), precision=precision),
        Node("norm", Op.BATCH_NORM, ("a",)),
        Node("relu", Op.RELU, ("norm",)),
        Node("b", Op.CONV, ("relu",), 2, precision=second or precision),
        Node("flatten", Op.FLATTEN, ("b",)),
        Node("linear", Op.LINEAR, ("flatten",), 5, bias=True, precision=second or precision),
    )
    return Network("small", InputContract((3, 4, 4), (0.5,) * 3, (0.5,) * 3), nodes, "linear")


def test_layer_counts_follow_their_closed_forms():
    a, b, linear = layer_costs(small())
    assert (a.macs, a.parameters, a.input_elements, a.output_elements) == (16 * 108, 108, 48, 64)
    assert (b.macs, b.parameters) == (16 * 8, 8)
    assert (linear.macs, linear.parameters, linear.input_elements) == (160, 160, 32)


@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        ("fp32", 4 * (108 + 4) + 4 * 8 + 4 * (160 + 5)),  # biases of the folded norm and of the linear
        ("w8a8", (108 + 16 + 16) + (8 + 8) + (160 + 20 + 20)),  # and a scale per output channel
        ("w4a8", (54 + 16 + 16) + (4 + 8) + (80 + 20 + 20)),
        ("w3a8", (41 + 16 + 16) + (3 + 8) + (60 + 20 + 20)),  # 40.5 bytes take 41
        ("w1a8", (14 + 16 + 16) + (1 + 8) + (20 + 20 + 20)),
        ("w4a32", (54 + 16 + 16) + (4 + 8) + (80 + 20 + 20)),
        ("k2a32", (27 + 16 + 16) + (2 + 16) + (40 + 20 + 16)),  # indices, and a codebook of four values each
        ("w32a8", 4 * (108 + 4) + 4 * 8 + 4 * (160 + 5)),
    ],
)
def test_size_counts_weights_biases_and_scales(precision, expected):
    network = small(parse_precision(precision))
    assert size_bytes(network) == expected
    assert sum(layer.size_bytes for layer in layer_costs(network)) == expected


def test_a_norm_that_cannot_be_folded_costs_scale_and_shift():
    nodes = (
        Node("input", Op.INPUT),
        Node("norm", Op.BATCH_NORM, ("input",)),
        Node("a", Op.CONV, ("norm",), 4),
    )
    assert size_bytes(Network("n", InputContract((3, 2, 2), (0.5,) * 3, (0.5,) * 3), nodes, "a")) == 2 * 4 * 3 + 4 * 12


def test_traffic_and_peak_count_what_is_stored():
    elements = {"input": 48, "relu": 64, "b": 32, "linear": 5}
    assert activation_traffic_bytes(small()) == 4 * (48 + 64 + 64 + 32 + 32 + 5)
    assert peak_activation_bytes(small()) == 4 * (elements["input"] + elements["relu"])


def test_a_residual_is_alive_until_it_is_added():
    contract = InputContract((2, 2, 2), (0.5,) * 2, (0.5,) * 2)
    nodes = (
        Node("input", Op.INPUT),
        Node("a", Op.CONV, ("input",), 2),
        Node("b", Op.CONV, ("a",), 6),
        Node("c", Op.CONV, ("b",), 2),
        Node("sum", Op.ADD, ("c", "a")),
    )
    network = Network("n", contract, nodes, "sum")
    assert peak_activation_bytes(network) == 4 * 4 * (2 + 6 + 2)
    assert activation_traffic_bytes(network) == 4 * 4 * (2 + 2 + 2 + 6 + 6 + 2 + 2 + 2 + 2)


def test_a_tensor_is_stored_at_the_highest_bits_that_a_reader_wants():
    bits = tensor_bits(small(FP32, second=W8A8))
    assert {name: bits[name] for name in ("input", "relu", "b", "flatten", "linear")} == {
        "input": 32,
        "relu": 8,
        "b": 8,
        "flatten": 8,
        "linear": 32,
    }
    contract = InputContract((2, 2, 2), (0.5,) * 2, (0.5,) * 2)
    nodes = (
        Node("input", Op.INPUT),
        Node("a", Op.CONV, ("input",), 2, precision=W8A8),
        Node("b", Op.CONV, ("input",), 2),
        Node("sum", Op.ADD, ("a", "b")),
    )
    assert tensor_bits(Network("n", contract, nodes, "sum"))["input"] == 32


def test_weight_bits_change_size_and_activation_bits_change_traffic():
    base = small()
    assert activation_traffic_bytes(small(W4A32)) == activation_traffic_bytes(base)
    assert size_bytes(small(W32A8)) == size_bytes(base)
    assert activation_traffic_bytes(small(W32A8)) == (48 + 64 + 64 + 32 + 32) + 4 * 5


def test_activation_functions_are_fused_only_where_nobody_else_reads(mobilenet):
    assert len(fused_operators(mobilenet)) == 27 + 1 + 1  # convs, pool, classifier
    contract = InputContract((2, 2, 2), (0.5,) * 2, (0.5,) * 2)
    nodes = (
        Node("input", Op.INPUT),
        Node("a", Op.CONV, ("input",), 2),
        Node("relu", Op.RELU, ("a",)),
        Node("sum", Op.ADD, ("relu", "a")),
    )
    operators = fused_operators(Network("n", contract, nodes, "sum"))
    assert [operator.output for operator in operators] == ["a", "relu", "sum"]


def test_equal_work_has_equal_digests_whatever_it_is_called(mobilenet):
    by_operator = {workload.name: workload.digest for workload in workloads(mobilenet)}
    same = [by_operator[f"block{number}.pointwise"] for number in range(7, 12)]
    assert len(set(same)) == 1
    assert by_operator["block6.pointwise"] != same[0]
    quantised = apply(mobilenet, Design.of({"precision/block8": "w8a8"}))
    assert {w.name: w.digest for w in workloads(quantised)}["block8.pointwise"] != same[0]
    assert json.loads(workloads(mobilenet)[0].signature)["ops"] == ["conv", "relu"]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_the_parts_agree_with_the_whole_on_random_graphs(data):
    network = data.draw(networks())
    applied = apply(network, data.draw(designs(network)))
    values = symbolic_values(applied)
    assert set(values) == SYMBOLIC_METRICS
    assert values["macs"] == macs(applied) == sum(layer.macs for layer in layer_costs(applied))
    assert values["parameters"] == parameters(applied)
    assert values["size_bytes"] == size_bytes(applied)
    assert values["activation_traffic_bytes"] == activation_traffic_bytes(applied)
    assert values["peak_activation_bytes"] == peak_activation_bytes(applied)
    assert infer_shapes(applied)[applied.output] == (3,)
