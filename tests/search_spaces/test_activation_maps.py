"""Which maps travel, what a spec may say of them, and what coding them saves on simulated hardware."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from search_spaces.accelerators import bit_fusion
from search_spaces.accelerators.layers import layers_of
from search_spaces.accelerators.models import MODELS, simulate
from search_spaces.activation_maps import coded_bits_by_name, travelling_maps
from search_spaces.catalog import build_network
from search_spaces.check import check_spec
from search_spaces.design import Design
from search_spaces.faults import SpecError
from search_spaces.known import Known
from search_spaces.methods import method_of
from search_spaces.network import InputContract, Network, Node, Op, infer_shapes
from search_spaces.objectives import Metric
from search_spaces.precision import FP32, W8A8, Precision
from search_spaces.quantisation import foldable_norms, without_norms
from search_spaces.spec import Family, NetworkSpec, SearchSpec


def catalog(family: Family, precision: Precision = FP32) -> Network:
    network = build_network(NetworkSpec(family=family, width=0.25, input=(3, 32, 32)), 10, (0.5,) * 3, (0.5,) * 3)
    network = without_norms(network, foldable_norms(network))
    return network.with_nodes({layer.name: replace(layer, precision=precision) for layer in network.compute_nodes()})


def test_a_map_is_written_by_one_operator_and_read_by_another():
    """Of an inverted bottleneck: behind the relu, or the conv where there is none; an addition's own result."""
    conv = {"op": Op.CONV, "channels": 8, "kernel": (1, 1)}
    nodes = (
        Node(name="image", op=Op.INPUT),
        Node(name="wide", inputs=("image",), **conv),
        Node(name="relu", op=Op.RELU6, inputs=("wide",)),
        Node(name="narrow", inputs=("relu",), **conv),
        Node(name="other", inputs=("narrow",), **conv),
        Node(name="sum", op=Op.ADD, inputs=("narrow", "other")),
        Node(name="pool", op=Op.GLOBAL_AVERAGE_POOL, inputs=("sum",)),
        Node(name="flat", op=Op.FLATTEN, inputs=("pool",)),
        Node(name="logits", op=Op.LINEAR, channels=10, inputs=("flat",)),
    )
    network = Network("some", InputContract((3, 6, 6), (0.5,) * 3, (0.5,) * 3), nodes, "logits")
    maps = travelling_maps(network)
    assert [(one.tensor, one.elements) for one in maps] == [
        ("relu", 288),
        ("narrow", 288),
        ("other", 288),
        ("sum", 288),
        ("pool", 8),
    ]
    assert {(one.bits, one.is_quantised, one.bytes_as_computed / one.elements) for one in maps} == {(16, False, 4.0)}
    assert {one.bits for one in travelling_maps(network, float_bits=12)} == {12}
    integers = network.with_nodes({node.name: replace(node, precision=W8A8) for node in network.compute_nodes()})
    found = travelling_maps(integers)
    assert {(one.bits, one.is_quantised, one.bytes_as_computed / one.elements) for one in found} == {(8, True, 1.0)}
    assert coded_bits_by_name(network, {"relu": 3.0, "pool": 5.0}) == {"wide": 3, "relu": 3, "pool": 5, "flat": 5}


@pytest.mark.parametrize("family", Family)
def test_maps_are_named_alike_with_and_without_batch_norms(family):
    network = build_network(NetworkSpec(family=family, width=0.25, input=(3, 96, 96)), 10, (0.5,) * 3, (0.5,) * 3)
    maps, shapes = travelling_maps(network), infer_shapes(network)
    assert maps == travelling_maps(without_norms(network, foldable_norms(network)))
    assert all(one.elements == math.prod(shapes[one.tensor]) for one in maps)


def test_what_is_saved_is_the_energy_of_the_bits_that_are_not_moved():
    network = catalog(Family.MOBILENET_V1, W8A8)
    maps = travelling_maps(network)
    whole = bit_fusion.LayerFigures(layers_of(network), bit_fusion.EDGE)
    same = bit_fusion.LayerFigures(layers_of(network, {one.tensor: 8.0 for one in maps}), bit_fusion.EDGE)
    np.testing.assert_array_equal(same.energy_j, whole.energy_j)
    half = layers_of(network, {one.tensor: 4.0 for one in maps})
    coded = bit_fusion.LayerFigures(half, bit_fusion.EDGE)
    saved = whole.memory_bits - coded.memory_bits
    np.testing.assert_allclose(whole.energy_j - coded.energy_j, saved * bit_fusion.EDGE.memory_bit_j, rtol=1e-9)
    assert (coded.compute_cycles == whole.compute_cycles).all()
    # Each layer between the first and the last reads and writes half of its maps.
    inner = slice(1, -2)
    moved = (layers_of(network).input_volume + layers_of(network).output_volume)[inner]
    assert (saved[inner] >= moved / 2 - 1e-6).all()


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith(("bit-fusion", "roofline"))])
def test_coded_maps_take_less_of_devices_that_count_traffic(name):
    precision = W8A8 if MODELS[name].capabilities.precisions[0] != "fp32" else FP32
    network = catalog(Family.RESNET_56, precision)
    maps = travelling_maps(network)
    usual = simulate(name, network)
    same, coded = (
        simulate(name, network, {one.tensor: bits for one in maps}) for bits in (precision.activation_bits, 2.0)
    )
    assert same == pytest.approx(usual)
    assert coded[Metric.ENERGY_J] < usual[Metric.ENERGY_J]
    assert coded[Metric.LATENCY_S] <= usual[Metric.LATENCY_S]
    assert coded[Metric.MEMORY_BYTES] == usual[Metric.MEMORY_BYTES]


def test_bit_serial_hardware_counts_no_traffic():
    network = catalog(Family.MOBILENET_V1, W8A8)
    coded = {one.tensor: 1.0 for one in travelling_maps(network)}
    assert simulate("bit-serial-edge", network, coded) == simulate("bit-serial-edge", network)


# --- specs ------------------------------------------------------------------------------------------------------


def document(**changes):
    return {
        "name": "maps",
        "network": {"family": "mobilenet_v1", "width": 0.25, "input": [1, 8, 8], "stem_stride": 1},
        "dataset": {"name": "digits"},
        "space": {"prune_ratio": {"high": 0.5}},
        "objectives": [{"metric": "accuracy", "direction": "maximize"}],
        **changes,
    }


def faults(**changes) -> list[tuple[str, str]]:
    with pytest.raises(SpecError) as caught:
        check_spec(SearchSpec.model_validate(document(**changes)), Known({}))
    return [(fault.pointer, fault.message) for fault in caught.value.faults]


def test_codecs_are_choices_of_a_space():
    spec = SearchSpec.model_validate(
        document(
            space={"activation_codec": {"choices": ["none", "seg"]}},
            objectives=[{"metric": "activation_bytes", "direction": "minimize"}],
            evaluation={"activation_codec": "raw"},
        )
    )
    space = check_spec(spec, Known({})).space
    assert [(decision.name, decision.choices) for decision in space.decisions] == [
        ("activation_codec/network", ("none", "seg"))
    ]
    kind = space.decisions[0].kind
    assert method_of(Design.of({"activation_codec/network": "seg"}), kind, spec) == "seg"
    assert method_of(Design.of({}), kind, spec) == "raw"


def test_what_is_no_codec_is_refused_with_those_that_are():
    found = faults(space={"activation_codec": {"choices": ["seg", "sag"]}})
    assert [pointer for pointer, _ in found] == ["/space/activation_codec/choices/1"]
    assert "did you mean seg? known are none, raw, zvc, huffman, eg, seg" in found[0][1]
    with pytest.raises(ValueError, match="activation_codec"):
        SearchSpec.model_validate(document(evaluation={"activation_codec": "zip"}))


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"evaluation": {"activation_codec": "seg"}}, "/evaluation/activation_codec"),
        ({"space": {"activation_codec": {"choices": ["none", "seg"]}}}, "/space/activation_codec"),
        (
            {
                "objectives": [
                    {"metric": "accuracy", "direction": "maximize"},
                    {"metric": "activation_nonzero_share", "direction": "minimize"},
                ]
            },
            "/objectives/1/metric",
        ),
        ({"limits": [{"metric": "activation_bytes", "max": 10}]}, "/limits/0/metric"),
    ],
)
def test_a_network_of_one_operator_has_no_maps(monkeypatch, changes, pointer):
    contract = InputContract((1, 8, 8), (0.5,), (0.5,))
    nodes = (
        Node(name="image", op=Op.INPUT),
        Node(name="flat", op=Op.FLATTEN, inputs=("image",)),
        Node(name="logits", op=Op.LINEAR, channels=10, inputs=("flat",)),
    )
    single = Network("single", contract, nodes, "logits")
    assert travelling_maps(single) == ()
    monkeypatch.setattr("search_spaces.check.build_for", lambda spec, dataset: single)
    assert (pointer, "single has no activation map between two operators; leave this out") in faults(
        **({"space": {"precision": {"choices": ["fp32", "w8a8"], "scope": "layer"}}} | changes)
    )


def test_no_map_has_less_than_no_bytes():
    limits = [{"metric": "activation_bytes", "min": 5}, {"metric": "activation_bytes", "max": 2}]
    assert faults(limits=limits)[0][0] == "/limits/0/min"
