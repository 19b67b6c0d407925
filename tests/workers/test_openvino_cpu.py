"""`openvino-cpu` keeps the Device contract, and executes what a network declares."""

from __future__ import annotations

import pytest

from search_spaces.catalog import build_network
from search_spaces.network import Network, in_precision
from search_spaces.precision import FP32, W8A8, Precision
from search_spaces.spec import Family, NetworkSpec
from workers.fold import fold_batch_norms
from workers.hardware.base import Deployed
from workers.hardware.openvino_cpu import OpenVinoCpu, compile_file, executed_precisions
from workers.hardware.testing import QUICK, DeviceContract, deploy, small_network
from workers.onnx_session import PrecisionMismatch
from workers.weights import init_weights


class TestOpenVinoCpu(DeviceContract):
    def make_device(self) -> OpenVinoCpu:
        return OpenVinoCpu()


def folded(family: Family) -> Network:
    network = build_network(NetworkSpec(family=family, input=(3, 32, 32)), 10, (0.5,) * 3, (0.5,) * 3)
    return fold_batch_norms(network, init_weights(network, seed=0))[0]


@pytest.mark.parametrize("family", [Family.MOBILENET_V1, Family.RESNET_18])
@pytest.mark.parametrize(("precision", "executed"), [(FP32, "f32"), (W8A8, "u8")])
def test_layers_execute_as_declared(family: Family, precision: Precision, executed: str):
    """Floats as well: left alone, OpenVINO computes them in bfloat16 where the processor can."""
    network = in_precision(folded(family), precision)
    told = executed_precisions(compile_file(deploy(network).model))
    assert told == {executed: len(network.compute_nodes())}


def test_another_precision_than_declared_is_no_measurement():
    declared = small_network(W8A8)
    with pytest.raises(PrecisionMismatch, match="declares 3 of 3 layers in integers, executes 3 in f32"):
        OpenVinoCpu().measure(Deployed(declared, deploy(small_network(FP32)).model), None, QUICK)
