"""The simulated accelerators keep the Device contract, and tell what their models say and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from search_spaces.accelerators.models import MODELS, simulate
from search_spaces.network import Network
from search_spaces.objectives import Metric
from search_spaces.precision import FP32, W8A8, Precision, parse_precision
from workers.hardware.accelerators import ACCELERATORS
from workers.hardware.base import Anchor, Deployed
from workers.hardware.testing import DeviceContract, small_network


class _AcceleratorContract(DeviceContract):
    name: str

    def make_device(self):
        return ACCELERATORS[self.name]()


class TestBitFusionEdge(_AcceleratorContract):
    name = "bit-fusion-edge"


class TestBitFusionServer(_AcceleratorContract):
    name = "bit-fusion-server"


class TestBitSerialCloud(_AcceleratorContract):
    name = "bit-serial-cloud"


class TestBitSerialEdge(_AcceleratorContract):
    name = "bit-serial-edge"


class TestRooflineWithoutIntegers(_AcceleratorContract):
    name = "roofline-p100"


class TestRooflineWithIntegers(_AcceleratorContract):
    name = "roofline-t4"


def fitting(name: str) -> Network:
    """A network that the device executes."""
    return small_network(parse_precision(MODELS[name].capabilities.precisions[0]), channels=64)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_device_tells_what_the_model_says_without_a_file(name: str):
    network = fitting(name)
    results = ACCELERATORS[name]().measure(Deployed(network))
    assert {metric: result.median for metric, result in results.items()} == simulate(name, network)
    assert all(result.protocol["model"] == name for result in results.values())


@pytest.mark.parametrize("name", sorted(MODELS))
def test_an_anchor_changes_nothing(name: str):
    device, deployed = ACCELERATORS[name](), Deployed(fitting(name))
    assert device.measure(deployed, Anchor(deployed, 1.0)) == device.measure(deployed)


def test_the_base_is_told_in_eight_bits_where_bits_are_free():
    free = [model.capabilities for model in MODELS.values() if model.capabilities.separate_bits]
    assert {one.name for one in free} == {name for name in MODELS if name.startswith("bit-")}
    assert {one.precisions[0] for one in free} == {"w8a8"}
    assert {len(set(one.precisions)) for one in free} == {49}


@pytest.mark.parametrize("precision", [FP32, Precision(16, 8), Precision(8, 1)])
def test_a_layer_that_is_not_executed_is_named_with_the_remedy(precision: Precision):
    network = small_network(W8A8)
    odd = replace(network.by_name()["second"], precision=precision)
    with pytest.raises(ValueError, match=f"'second' is in {precision}, .* choose from w2a2 to w8a8"):
        ACCELERATORS["bit-fusion-edge"]().measure(Deployed(network.with_nodes({"second": odd})))


def test_a_chip_without_integer_instructions_refuses_integers():
    with pytest.raises(ValueError, match="choose from fp32"):
        simulate("roofline-p100", small_network(W8A8))


def test_a_network_without_layers_is_refused():
    network = small_network(W8A8)
    bare = Network(
        "bare", network.input, (network.nodes[0], replace(network.by_name()["pool"], inputs=("input",))), "pool"
    )
    with pytest.raises(ValueError, match="the network has none"):
        simulate("bit-serial-edge", bare)


def test_an_inference_of_the_cloud_configuration_is_its_batch():
    device = ACCELERATORS["bit-serial-cloud"]()
    assert device.capabilities().batch == 16
    assert device.measure(Deployed(fitting("bit-serial-cloud")))[Metric.LATENCY_S].protocol["batch"] == 16
