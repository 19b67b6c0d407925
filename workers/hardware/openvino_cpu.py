"""`openvino-cpu`: this machine's processor, by OpenVINO, on the same ONNX file. An optional package.

OpenVINO decides for itself what a layer is computed in: on processors with bfloat16 it makes that of every float unless
it is told not to. So it is told, and what it executes is compared with what the network declares.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np

from search_spaces.network import Network
from search_spaces.quantisation import is_quantised_layer
from workers.hardware.base import Deployed
from workers.hardware.processor_device import ProcessorDevice
from workers.hardware.timing import DEFAULT_PROTOCOL, Protocol, Run
from workers.onnx_session import PrecisionMismatch

NAME = "openvino-cpu"

_LAYER_TYPES = frozenset({"Convolution", "FullyConnected", "MatMul"})
_INTEGERS = frozenset({"u8", "i8"})


class OpenVinoCpu(ProcessorDevice):
    """See the module."""

    name = NAME
    runtime = "OpenVINO"

    def why_absent(self) -> str:
        return "" if find_spec("openvino") else "OpenVINO is not installed: pip install 'espalier[openvino]'"

    def version(self) -> str:
        return f"openvino {version('openvino')}"

    def open(self, model: bytes, protocol: Protocol) -> Run:
        compiled = compile_file(model, protocol)
        request = compiled.create_infer_request()
        data = np.random.default_rng(0).standard_normal(list(compiled.inputs[0].get_shape()), dtype=np.float32)
        return lambda: request.infer([data], share_inputs=True)

    def check_executed(self, deployed: Deployed, protocol: Protocol) -> None:
        compare_executed(deployed.network, compile_file(deployed.model, protocol))


def compile_file(model: bytes, protocol: Protocol = DEFAULT_PROTOCOL) -> Any:
    """An ONNX file as OpenVINO will execute it: one stream, for latency, floats as they are."""
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": protocol.threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,  # whoever measures says where
    }
    core = _core()
    return core.compile_model(core.read_model(model), "CPU", options)


def executed_precisions(compiled: Any) -> Counter[str]:
    """How many convs and linears execute in what, such as `{"u8": 27, "f32": 1}`: told by OpenVINO's runtime model."""
    told: Counter[str] = Counter()
    for operator in compiled.get_runtime_model().get_ordered_ops():
        info = operator.get_rt_info()
        if info["layerType"].astype(str) in _LAYER_TYPES:
            told[info["runtimePrecision"].astype(str)] += 1
    return told


def compare_executed(network: Network, compiled: Any) -> None:
    """Compare what is executed in integers with what is declared so. Raises `PrecisionMismatch`.

    Counts are compared: OpenVINO names what it has fused after any of its parts.
    """
    layers = network.compute_nodes()
    declared, executed = sum(map(is_quantised_layer, layers)), executed_precisions(compiled)
    in_integers = sum(count for precision, count in executed.items() if precision in _INTEGERS)
    if declared != in_integers or executed["bf16"] or executed["f16"]:
        told = ", ".join(f"{count} in {precision}" for precision, count in sorted(executed.items()))
        raise PrecisionMismatch(
            {network.name: f"declares {declared} of {len(layers)} layers in integers, executes {told}"}
        )


@lru_cache(maxsize=1)
def _core() -> Any:
    import openvino  # optional, and large

    return openvino.Core()
