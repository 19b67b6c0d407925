"""What the devices that are this machine's processor share: what it is, and how a file is timed on it.

Machines drift between speeds for minutes. So a candidate and an anchor of its family take turns, and the median of
their ratios, times the anchor's latency as once measured, is what is told; see `timing`.
"""

from __future__ import annotations

import gc
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np

from search_spaces.objectives import Metric
from workers.hardware.base import Anchor, Deployed, MeasurementResult, Provenance, summarise
from workers.hardware.timing import Protocol, Run, time_alone, time_beside

OpenRun = Callable[[bytes, Protocol], Run]
"""Opens a file anew, and gives what runs one inference of it."""

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


def time_file(
    deployed: Deployed, anchor: Anchor | None, protocol: Protocol, open_run: OpenRun, runtime: str
) -> MeasurementResult:
    """Latency of one inference of a file on this machine's processor, beside the anchor if there is one."""
    conditions = {"runtime": runtime, "pinned": is_pinnable(protocol)}
    ratio = None
    with undisturbed(protocol):
        if anchor is None:
            times = time_alone(lambda: open_run(deployed.model, protocol), protocol)
        else:
            files = (deployed.model, anchor.deployed.model)
            pairs = time_beside(lambda: (open_run(files[0], protocol), open_run(files[1], protocol)), protocol)
            ratios = pairs[:, 0] / pairs[:, 1]
            times, ratio = ratios * anchor.latency_s, float(np.median(ratios))
    return summarise(Metric.LATENCY_S, times, ratio, protocol, conditions, Provenance.MEASURED)


def is_pinnable(protocol: Protocol) -> bool:
    return protocol.threads == 1 and hasattr(os, "sched_setaffinity")


@contextmanager
def undisturbed(protocol: Protocol) -> Iterator[None]:
    """This thread stays on one core if one is all it may use, and the garbage collector waits."""
    pinnable = is_pinnable(protocol)
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


def thread_counts() -> tuple[int, ...]:
    """1, 2, 4 ... as many as there are cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return tuple(2**power for power in range(cores.bit_length()) if 2**power <= cores)


@lru_cache(maxsize=1)
def processor() -> Mapping[str, str]:
    """Model, the instruction sets that decide speed, and who sets its clock; as much as the system tells."""
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in _cpu_lines())}
    present = set(fields.get("flags", fields.get("Features", "")).split())
    return {
        "processor": fields.get("model name") or platform.processor() or platform.machine(),
        "instruction_sets": " ".join(flag for flag in _ISA_FLAGS if flag in present),
        "governor": _read_line(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")) or "not told",
    }


def _cpu_lines() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def _read_line(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
