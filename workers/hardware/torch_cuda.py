"""`torch-cuda`: this machine's first graphics processor, timed by its own clock.

Floating point only, and real fp32: libraries would round to the 10 bits of TF32 unless told not to. Integers are not
listed: ONNX Runtime computes our quantised layers in floating point on CUDA, and TensorRT takes no activations with a
zero point, which ours have.

It must not load torch before a CUDA device is known to be here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from search_spaces.capabilities import DeviceCapabilities
from search_spaces.objectives import DEVICE_METRICS, Metric
from workers.hardware.base import Anchor, Deployed, Device, MeasurementResult, Provenance, Results, summarise
from workers.hardware.energy import EnergyMeter, EnergyProtocol, measure_energy
from workers.hardware.processor import undisturbed
from workers.hardware.timing import DEFAULT_PROTOCOL, Run, time_alone, time_beside
from workers.hardware.timing import Protocol as TimingProtocol

NAME = "torch-cuda"
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
CHANNEL_DIVISOR = 4
"""Floats of the widest load. Not measured."""
ENERGY_PROTOCOL = EnergyProtocol(windows=5, window_s=5.0, idle_s=5.0)
"""Counters of graphics processors move every tenth of a second; the idle window also lets the chip cool."""
DRIVER = (Path("/proc/driver/nvidia/version"), Path("/dev/dxg"))
"""There where NVIDIA's driver is loaded: on Linux, and on Linux inside of Windows."""

Launch = Callable[[], object]
"""Starts one inference on the device, and does not wait for it."""


class Cuda(Protocol):
    """A CUDA device as it is read: the lowest level, of which a recording can take the place."""

    @property
    def chip(self) -> str:
        """The model."""

    @property
    def fingerprint(self) -> Mapping[str, str]:
        """Chip, driver, libraries and what executes networks."""

    def why_no_energy(self) -> str:
        """Why energy cannot be told; empty where it can."""

    def why_no_memory(self) -> str:
        """Why memory cannot be told; empty where it can."""

    def open(self, deployed: Deployed, protocol: TimingProtocol) -> Launch:
        """A network on the device, with fixed data there."""

    def elapsed_s(self, launch: Launch) -> float:
        """Seconds between an event before and one after it, on the device's clock, once both have passed."""

    def peak_bytes(self, deployed: Deployed, protocol: TimingProtocol) -> int:
        """The most that one inference held at once, with the weights."""

    def meter(self) -> EnergyMeter:
        """The device's energy counter."""


@dataclass
class _DeviceClock:
    """Seconds that the device has worked, for a protocol that reads a clock before and after each run."""

    cuda: Cuda
    now: float = 0.0

    def timed(self, launch: Launch) -> Run:
        def run() -> None:
            self.now += self.cuda.elapsed_s(launch)

        return run

    def read(self) -> float:
        return self.now


def _this_machine() -> Cuda:
    from workers.hardware.cuda import ThisMachine  # loads torch

    return ThisMachine()


class TorchCuda(Device):
    """See the module.

    Attributes:
        find: the CUDA device; called once, where there is one.
        energy_protocol: see there.
    """

    def __init__(
        self, find: Callable[[], Cuda] = _this_machine, energy_protocol: EnergyProtocol = ENERGY_PROTOCOL
    ) -> None:
        self._find = find
        self._energy_protocol = energy_protocol

    def why_absent(self) -> str:
        if not any(path.exists() for path in DRIVER):
            return "this machine has no CUDA device: NVIDIA's driver is not loaded"
        if find_spec("torch") is None:
            return "torch is not installed: pip install 'espalier[worker]'"
        from workers.hardware.cuda import why_unusable  # loads torch

        return why_unusable()

    @cached_property
    def _cuda(self) -> Cuda:
        return self._find()

    def capabilities(self) -> DeviceCapabilities:
        return self._capabilities

    @cached_property
    def _capabilities(self) -> DeviceCapabilities:
        reasons = {
            Metric.ENERGY_J: self._cuda.why_no_energy(),
            Metric.MEMORY_BYTES: self._cuda.why_no_memory(),
        }
        return DeviceCapabilities(
            name=NAME,
            description=f"{self._cuda.chip}: this machine's graphics processor, batch 1",
            precisions=("fp32",),
            channel_divisor=CHANNEL_DIVISOR,
            metrics=(Metric.LATENCY_S, *(metric for metric, reason in reasons.items() if not reason)),
            unavailable={metric: reason for metric, reason in reasons.items() if reason},
            batches=BATCHES,
            fingerprint=dict(self._cuda.fingerprint),
        )

    def measure(
        self,
        deployed: Deployed,
        anchor: Anchor | None = None,
        protocol: TimingProtocol = DEFAULT_PROTOCOL,
        wanted: Collection[Metric] = DEVICE_METRICS,
    ) -> Results:
        """See the contract. Raises `EnergyUnreadableError`: see `measure_energy`."""
        conditions, told = self._cuda.fingerprint, set(wanted).intersection(self._capabilities.metrics)
        results: dict[Metric, MeasurementResult] = {}
        if Metric.MEMORY_BYTES in told:  # first: nothing else is on the device yet
            peak = self._cuda.peak_bytes(deployed, protocol)
            results[Metric.MEMORY_BYTES] = summarise(
                Metric.MEMORY_BYTES, np.array([float(peak)]), None, protocol, conditions, Provenance.MEASURED
            )
        with undisturbed(protocol):
            results[Metric.LATENCY_S] = self._time(deployed, anchor, protocol)
            if Metric.ENERGY_J in told:
                launch = self._cuda.open(deployed, protocol)
                run = _DeviceClock(self._cuda).timed(launch)  # one at a time, as it is timed
                results[Metric.ENERGY_J] = measure_energy(
                    run, self._cuda.meter(), self._energy_protocol, protocol, conditions
                )
        return results

    def _time(self, deployed: Deployed, anchor: Anchor | None, protocol: TimingProtocol) -> MeasurementResult:
        conditions = {**self._cuda.fingerprint, "clock": "CUDA events"}
        evidence: dict[str, Any] = {}
        clock = _DeviceClock(self._cuda)

        def opened(one: Deployed) -> Run:
            return clock.timed(self._cuda.open(one, protocol))

        if anchor is None:
            times, ratio = time_alone(lambda: opened(deployed), protocol, clock.read), None
        else:
            pairs = time_beside(lambda: (opened(deployed), opened(anchor.deployed)), protocol, clock.read)
            ratios = pairs[:, 0] / pairs[:, 1]
            times, ratio = ratios * anchor.latency_s, float(np.median(ratios))
            evidence["anchor_latency_s"] = anchor.latency_s  # no condition: figures beside other anchors compare
        return summarise(Metric.LATENCY_S, times, ratio, protocol, conditions, Provenance.MEASURED, evidence)
