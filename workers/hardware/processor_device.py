"""What the devices that are this machine's processor have in common: all but the runtime."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection
from functools import lru_cache
from typing import ClassVar

from search_spaces.capabilities import DeviceCapabilities, TensorFormat
from search_spaces.objectives import DEVICE_METRICS, Metric
from workers.hardware.base import Anchor, Deployed, Device, Results
from workers.hardware.processor import processor, thread_counts, time_file
from workers.hardware.processor_energy import energy_of_file, why_no_energy
from workers.hardware.timing import DEFAULT_PROTOCOL, Protocol, Run

BATCHES = (1, 2, 4, 8, 16, 32)
CHANNEL_DIVISOR = 16
"""Measured with ONNX Runtime: int8 depthwise convs fall off a cliff at other channel counts, fp32 ones at other than 4.
OpenVINO's kernels compute in a layout of 16 channels with AVX-512; unaligned counts are merely not faster."""


class ProcessorDevice(Device):
    """This machine's processor by one runtime, which says how a file is opened.

    Attributes:
        name: of the device.
        runtime: what people call it.
    """

    name: ClassVar[str]
    runtime: ClassVar[str]

    @abstractmethod
    def version(self) -> str:
        """The runtime and its version, such as `onnxruntime 1.32.0`."""

    @abstractmethod
    def open(self, model: bytes, protocol: Protocol) -> Run:
        """One inference of an ONNX file, opened anew, on fixed data."""

    @abstractmethod
    def check_executed(self, deployed: Deployed, protocol: Protocol) -> None:
        """Raises `PrecisionMismatch`: layers would execute in another precision than the network declares."""

    def capabilities(self) -> DeviceCapabilities:
        return _capabilities(self.name, self.runtime, self.version())

    def measure(
        self,
        deployed: Deployed,
        anchor: Anchor | None = None,
        protocol: Protocol = DEFAULT_PROTOCOL,
        wanted: Collection[Metric] = DEVICE_METRICS,
    ) -> Results:
        """See the contract. Raises `PrecisionMismatch`: what would be timed is not what the network declares."""
        self.check_executed(deployed, protocol)
        results = {Metric.LATENCY_S: time_file(deployed, anchor, protocol, self.open, self.version())}
        if Metric.ENERGY_J in wanted and Metric.ENERGY_J in self.capabilities().metrics:
            results[Metric.ENERGY_J] = energy_of_file(deployed, protocol, self.open, self.version())
        return results


@lru_cache
def _capabilities(name: str, runtime: str, version: str) -> DeviceCapabilities:
    no_energy = why_no_energy()
    return DeviceCapabilities(
        name=name,
        description=f"{processor()['processor']}: this machine's processor by {runtime}, one thread, batch 1",
        precisions=("fp32", "w8a8"),
        weights=TensorFormat(dtype="int8", symmetric=True, granularity="channel"),
        activations=TensorFormat(dtype="uint8", symmetric=False, granularity="tensor"),
        precision_scope="block",
        channel_divisor=CHANNEL_DIVISOR,
        metrics=(Metric.LATENCY_S,) if no_energy else (Metric.LATENCY_S, Metric.ENERGY_J),
        unavailable={
            **({Metric.ENERGY_J: no_energy} if no_energy else {}),
            Metric.MEMORY_BYTES: f"{runtime} does not tell what one model has held at most",
        },
        batches=BATCHES,
        thread_counts=thread_counts(),
        fingerprint={**processor(), "runtime": version, "threads": "1"},
    )
