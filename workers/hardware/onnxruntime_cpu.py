"""`local-cpu`: this machine's processor, by ONNX Runtime on one thread, one image at a time.

Machines drift between speeds for minutes. So a candidate and an anchor of its family take turns, and the
median of their ratios, times the anchor's latency as once measured, is what is told; see `timing`.
"""

from __future__ import annotations

import gc
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnxruntime

from search_spaces.capabilities import DeviceCapabilities
from search_spaces.objectives import Metric
from workers.hardware.base import Anchor, Device, MeasurementResult, Provenance, summarise
from workers.hardware.timing import DEFAULT_PROTOCOL, Protocol, Run, time_alone, time_beside
from workers.onnx_session import open_session

NAME = "local-cpu"
THREADS = 1
CHANNEL_DIVISOR = 16
"""Measured: int8 depthwise convs fall off a cliff at other channel counts, fp32 ones at other than 4."""

_ISA_FLAGS = (
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "asimd",
    "asimddp",
    "i8mm",
    "sve",
)
_CONDITIONS = {"runtime": f"onnxruntime {onnxruntime.__version__}", "threads": THREADS, "batch": 1, "pinned": True}


class OnnxRuntimeCpu(Device):
    """See the module."""

    def capabilities(self) -> DeviceCapabilities:
        return _capabilities()

    def measure_anchor(self, model: bytes, protocol: Protocol = DEFAULT_PROTOCOL) -> MeasurementResult:
        with _undisturbed():
            times = time_alone(lambda: _open(model), protocol)
        return summarise(Metric.LATENCY_S, times, None, protocol, _CONDITIONS, Provenance.MEASURED)

    def measure(self, model: bytes, anchor: Anchor, protocol: Protocol = DEFAULT_PROTOCOL) -> MeasurementResult:
        with _undisturbed():
            times = time_beside(lambda: (_open(model), _open(anchor.model)), protocol)
        ratios = times[:, 0] / times[:, 1]
        anchored, ratio = ratios * anchor.latency_s, float(np.median(ratios))
        conditions = {**_CONDITIONS, "anchor_latency_s": anchor.latency_s}
        return summarise(Metric.LATENCY_S, anchored, ratio, protocol, conditions, Provenance.MEASURED)


def _open(model: bytes) -> Run:
    """One inference in a fresh session, on fixed data."""
    session = open_session(model, THREADS)
    (image,) = session.get_inputs()
    data = np.random.default_rng(0).standard_normal(image.shape, dtype=np.float32)
    feed = {image.name: data}
    return lambda: session.run(None, feed)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """This thread stays on one core, and the garbage collector waits."""
    pinnable = hasattr(os, "sched_setaffinity")
    before = os.sched_getaffinity(0) if pinnable else set()
    collecting = gc.isenabled()
    gc.disable()
    try:
        if pinnable:
            os.sched_setaffinity(0, {max(before)})
        yield
    finally:
        if pinnable:
            os.sched_setaffinity(0, before)
        if collecting:
            gc.enable()


@lru_cache(maxsize=1)
def _capabilities() -> DeviceCapabilities:
    return DeviceCapabilities(
        name=NAME,
        description=f"{_processor()['model']}: this machine's processor by ONNX Runtime, one thread, batch 1",
        precisions=("fp32", "w8a8"),
        precision_scope="block",
        channel_divisor=CHANNEL_DIVISOR,
        metrics=(Metric.LATENCY_S,),
        unavailable={Metric.ENERGY_J: _no_energy_reason()},
        batch=1,
        threads=THREADS,
        fingerprint={
            "processor": _processor()["model"],
            "instruction_sets": _processor()["flags"],
            "runtime": f"onnxruntime {onnxruntime.__version__}",
            "threads": str(THREADS),
        },
    )


def _processor() -> dict[str, str]:
    """Model and the instruction sets that decide speed; as much as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    present = set(fields.get("flags", fields.get("Features", "")).split())
    model = fields.get("model name") or platform.processor() or platform.machine()
    return {"model": model, "flags": " ".join(flag for flag in _ISA_FLAGS if flag in present)}


def _no_energy_reason() -> str:
    """Even a readable counter tells the whole package's energy, of everything that runs on it."""
    counters = list(Path("/sys/class/powercap").glob("intel-rapl:*/energy_uj"))
    if not counters:
        return "this machine has no energy counter that can be read"
    return "the energy counter of this machine counts the whole processor, not one inference; it is not read"
