"""`openvino-cpu`: this machine's processor, by OpenVINO, on the same ONNX file. An optional package.

OpenVINO decides for itself what a layer is computed in: on processors with bfloat16 it makes that of every float unless
it is told not to. So it is told, and what it executes is compared with what the network declares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np

from search_spaces.capabilities import DeviceCapabilities, TensorFormat
from search_spaces.network import Network
from search_spaces.objectives import DEVICE_METRICS, Metric
from search_spaces.quantisation import is_quantised_layer
from workers.hardware.base import Anchor, Deployed, Device, Results
from workers.hardware.processor import processor, thread_counts, time_file
from workers.hardware.processor_energy import energy_of_file, why_no_energy
from workers.hardware.timing import DEFAULT_PROTOCOL, Protocol, Run
from workers.onnx_session import PrecisionMismatch

NAME = "openvino-cpu"
BATCHES = (1, 2, 4, 8, 16, 32)
CHANNEL_DIVISOR = 16
"""Channels of the layout that its kernels compute in, with AVX-512; unaligned counts are merely not faster."""

_LAYER_TYPES = frozenset({"Convolution", "FullyConnected", "MatMul"})
_INTEGERS = frozenset({"u8", "i8"})


class OpenVinoCpu(Device):
    """See the module."""

    def why_absent(self) -> str:
        return "" if find_spec("openvino") else "OpenVINO is not installed: pip install 'espalier[openvino]'"

    def capabilities(self) -> DeviceCapabilities:
        return _capabilities()

    def measure(
        self,
        deployed: Deployed,
        anchor: Anchor | None = None,
        protocol: Protocol = DEFAULT_PROTOCOL,
        wanted: Collection[Metric] = DEVICE_METRICS,
    ) -> Results:
        """See the contract. Raises `PrecisionMismatch`: layers execute in another precision than declared."""
        check_executed(deployed.network, compile_file(deployed.model, protocol))
        results = {Metric.LATENCY_S: time_file(deployed, anchor, protocol, _open, _runtime())}
        if Metric.ENERGY_J in wanted and Metric.ENERGY_J in _capabilities().metrics:
            results[Metric.ENERGY_J] = energy_of_file(deployed, protocol, _open, _runtime())
        return results


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


def check_executed(network: Network, compiled: Any) -> None:
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


def _open(model: bytes, protocol: Protocol) -> Run:
    """One inference in a freshly compiled model, on fixed data."""
    compiled = compile_file(model, protocol)
    request = compiled.create_infer_request()
    data = np.random.default_rng(0).standard_normal(list(compiled.inputs[0].get_shape()), dtype=np.float32)
    return lambda: request.infer([data], share_inputs=True)


def _runtime() -> str:
    return f"openvino {version('openvino')}"


@lru_cache(maxsize=1)
def _capabilities() -> DeviceCapabilities:
    no_energy = why_no_energy()
    return DeviceCapabilities(
        name=NAME,
        description=f"{processor()['processor']}: this machine's processor by OpenVINO, one thread, batch 1",
        precisions=("fp32", "w8a8"),
        weights=TensorFormat(dtype="int8", symmetric=True, granularity="channel"),
        activations=TensorFormat(dtype="uint8", symmetric=False, granularity="tensor"),
        precision_scope="block",
        channel_divisor=CHANNEL_DIVISOR,
        metrics=(Metric.LATENCY_S,) if no_energy else (Metric.LATENCY_S, Metric.ENERGY_J),
        unavailable={
            **({Metric.ENERGY_J: no_energy} if no_energy else {}),
            Metric.MEMORY_BYTES: "OpenVINO does not tell what one model has held at most",
        },
        batches=BATCHES,
        thread_counts=thread_counts(),
        fingerprint={**processor(), "runtime": _runtime(), "threads": "1"},
    )
