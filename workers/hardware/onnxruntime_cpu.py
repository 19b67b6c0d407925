"""`local-cpu`: this machine's processor, by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

import numpy as np
import onnxruntime

from search_spaces.capabilities import DeviceCapabilities, TensorFormat
from search_spaces.objectives import DEVICE_METRICS, Metric
from workers.hardware.base import Anchor, Deployed, Device, Results
from workers.hardware.processor import processor, thread_counts, time_file
from workers.hardware.processor_energy import energy_of_file, why_no_energy
from workers.hardware.timing import DEFAULT_PROTOCOL, Protocol, Run
from workers.onnx_session import open_session

NAME = "local-cpu"
CHANNEL_DIVISOR = 16
"""Measured: int8 depthwise convs fall off a cliff at other channel counts, fp32 ones at other than 4."""
BATCHES = (1, 2, 4, 8, 16, 32)

_RUNTIME = f"onnxruntime {onnxruntime.__version__}"


class OnnxRuntimeCpu(Device):
    """See the module."""

    def capabilities(self) -> DeviceCapabilities:
        return _capabilities()

    def measure(
        self,
        deployed: Deployed,
        anchor: Anchor | None = None,
        protocol: Protocol = DEFAULT_PROTOCOL,
        wanted: Collection[Metric] = DEVICE_METRICS,
    ) -> Results:
        results = {Metric.LATENCY_S: time_file(deployed, anchor, protocol, _open, _RUNTIME)}
        if Metric.ENERGY_J in wanted and Metric.ENERGY_J in _capabilities().metrics:
            results[Metric.ENERGY_J] = energy_of_file(deployed, protocol, _open, _RUNTIME)
        return results


def _open(model: bytes, protocol: Protocol) -> Run:
    """One inference in a fresh session, on fixed data."""
    session = open_session(model, protocol.threads)
    (image,) = session.get_inputs()
    data = np.random.default_rng(0).standard_normal(image.shape, dtype=np.float32)
    feed = {image.name: data}
    return lambda: session.run(None, feed)


@lru_cache(maxsize=1)
def _capabilities() -> DeviceCapabilities:
    no_energy = why_no_energy()
    return DeviceCapabilities(
        name=NAME,
        description=f"{processor()['processor']}: this machine's processor by ONNX Runtime, one thread, batch 1",
        precisions=("fp32", "w8a8"),
        weights=TensorFormat(dtype="int8", symmetric=True, granularity="channel"),
        activations=TensorFormat(dtype="uint8", symmetric=False, granularity="tensor"),
        precision_scope="block",
        channel_divisor=CHANNEL_DIVISOR,
        metrics=(Metric.LATENCY_S,) if no_energy else (Metric.LATENCY_S, Metric.ENERGY_J),
        unavailable={
            **({Metric.ENERGY_J: no_energy} if no_energy else {}),
            Metric.MEMORY_BYTES: "ONNX Runtime does not tell what one session has held at most",
        },
        batches=BATCHES,
        thread_counts=thread_counts(),
        fingerprint={**processor(), "runtime": _RUNTIME, "threads": "1"},
    )
