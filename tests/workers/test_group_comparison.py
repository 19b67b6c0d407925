"""Constant group size against a constant number of groups: pairs of equal MACs, on devices that are here."""

from __future__ import annotations

import json

import pytest

from search_spaces.accelerators.models import simulate
from search_spaces.apply import apply
from search_spaces.catalog import build_network
from search_spaces.check import check_spec
from search_spaces.costs import macs
from search_spaces.network import Network, in_precision
from search_spaces.objectives import Metric
from search_spaces.parse import parse_document, parse_spec
from search_spaces.precision import FP32, W8A8
from search_spaces.spec import NetworkSpec, SamplerName
from service.examples import example_path
from workers.announce import local_known
from workers.group_comparison import Scheme, compare_groupings, grouped_design, matched_pairs
from workers.hardware import open_device
from workers.hardware.accelerators import ACCELERATORS
from workers.hardware.onnxruntime_cpu import OnnxRuntimeCpu


def network_of(family: str, side: int, width: float = 1.0) -> Network:
    return build_network(NetworkSpec(family=family, width=width, input=(3, side, side)), 1000, (0.5,) * 3, (0.5,) * 3)


def test_the_pairs_of_equal_macs_are_the_reference_ones() -> None:
    found = matched_pairs(network_of("mobilenet_v1", 224), (1, 2, 4, 8, 16, 32), (8, 16, 32, 64, 128))
    assert found == ((2, 128), (4, 64), (8, 32), (16, 16), (32, 8))
    # G = 32 would be 2.7% from g = 8.
    assert matched_pairs(network_of("resnext_50", 224), (4, 8, 16, 32), (8, 16, 32, 64)) == ((4, 64), (8, 32), (16, 16))


@pytest.mark.parametrize(("name", "precision"), [("roofline-p100", FP32), ("bit-fusion-edge", W8A8)])
def test_simulated_devices_tell_what_their_models_do(name: str, precision: object) -> None:
    network = network_of("mobilenet_v1", 224)
    (found,) = compare_groupings(network, [(8, 32)], open_device(name, ACCELERATORS), precision)
    for scheme, number, told in (
        (Scheme.CONSTANT_SIZE, 8, found.constant_size),
        (Scheme.CONSTANT_NUMBER, 32, found.constant_number),
    ):
        applied = apply(in_precision(network, precision), grouped_design(scheme, number))
        assert told.macs == macs(applied)
        assert told.figures == pytest.approx(simulate(name, applied), rel=1e-9)
    assert found.constant_size.parameters < found.constant_number.parameters
    low, high = found.constant_size.intensities
    assert (low, high) == pytest.approx((11.1, 35.9), rel=3e-3)
    energy = found.constant_number.figures[Metric.ENERGY_J] / found.constant_size.figures[Metric.ENERGY_J]
    assert found.ratios()[Metric.ENERGY_J] == energy
    told = json.loads(json.dumps(found.to_json()))
    assert told["constant_size"]["energy_j"] == found.constant_size.figures[Metric.ENERGY_J]
    assert told["ratios"]["energy_j"] == energy


def test_this_machine_measures_both_beside_the_base() -> None:
    (found,) = compare_groupings(network_of("mobilenet_v1", 32, width=0.25), [(2, 16)], OnnxRuntimeCpu(), FP32)
    assert found.constant_size.figures[Metric.LATENCY_S] > 0
    assert 0.05 < found.ratios()[Metric.LATENCY_S] < 20


@pytest.mark.parametrize(
    ("name", "decision", "choices"),
    [
        ("mobilenet_v1_group_size.yaml", "group_size/network", (1, 2, 4, 8, 16)),
        ("mobilenet_v1_group_number.yaml", "groups/network", (128, 64, 32, 16)),
    ],
)
def test_the_examples_vary_one_number_for_the_whole_network(name: str, decision: str, choices: tuple) -> None:
    spec = parse_spec(parse_document(example_path(name).read_bytes(), yaml=True))
    checked = check_spec(spec, local_known())
    assert {one.name: one.choices for one in checked.space.decisions}[decision] == choices
    assert spec.sampler.name == SamplerName.AUTO
    assert checked.warnings == ()
    assert checked.waiting_for == ""
