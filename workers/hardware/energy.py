"""Energy of one inference, from a counter of a whole processor: long windows, what it draws anyway subtracted.

A counter tells everything that its processor does, and moves in steps: of a millisecond for RAPL, of some tens for
NVML, where single readings are off by far more than the spread suggests (Yang et al., SC 2024). So windows are long,
each is preceded by one in which nothing runs, and what is told is net of that. Whoever calls keeps the machine quiet.

It must not know what a run executes, or where the counter is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from time import perf_counter, sleep
from typing import Any, Protocol

import numpy as np

from search_spaces.objectives import Metric
from workers.hardware.base import MeasurementResult, Provenance, summarise
from workers.hardware.timing import Clock, Run
from workers.hardware.timing import Protocol as TimingProtocol

_FEWEST_WINDOWS = 3


class EnergyUnreadableError(RuntimeError):
    """The counter gave too few windows that can be believed, or saw nothing of the runs in them."""


@dataclass(frozen=True, slots=True)
class Window:
    """What a counter told of a stretch of time."""

    seconds: float
    joules: float


class EnergyMeter(Protocol):
    """A counter that is read at both ends of a window."""

    @property
    def source(self) -> str:
        """What is read, for people."""

    def begin(self) -> None:
        """Start a window, once all that was started before is done."""

    def end(self) -> Window:
        """End it, once all that was started in it is done."""


@dataclass(frozen=True, slots=True)
class EnergyProtocol:
    """How energy is measured. It is stored with the result.

    Attributes:
        windows: so many, each after an idle one.
        window_s, idle_s: they last at least so long.
        warm_runs: before the first.
    """

    windows: int = 5
    window_s: float = 1.0
    idle_s: float = 1.0
    warm_runs: int = 10


def measure_energy(
    run: Run,
    meter: EnergyMeter,
    protocol: EnergyProtocol,
    timing: TimingProtocol,
    conditions: Mapping[str, Any],
    *,
    clock: Clock = perf_counter,
    wait: Callable[[float], None] = sleep,
) -> MeasurementResult:
    """Joules of one inference, net of what is drawn in idle windows. Gross energy and idle power are the evidence.

    Raises:
        EnergyUnreadableError: the counter moved on in fewer than three windows, not standing still or wrapping around;
            or in the median a run takes no more than idling, as when it is too short to be seen. A window with
            less than that is noise like one with more: to leave it out would raise the median.
    """
    for _ in range(protocol.warm_runs):
        run()
    taken = np.array([_take_pair(run, meter, protocol, clock, wait) for _ in range(protocol.windows)])
    gross_j, net_j, idle_w = taken[(taken[:, 0] > 0) & (taken[:, 2] >= 0)].T
    if len(net_j) < _FEWEST_WINDOWS:
        raise EnergyUnreadableError(
            f"{meter.source}: in {len(net_j)} of {protocol.windows} windows of {protocol.window_s} s the counter moved "
            "on; otherwise it stood still or began anew"
        )
    if np.median(net_j) <= 0:
        raise EnergyUnreadableError(
            f"{meter.source}: in the median of {len(net_j)} windows of {protocol.window_s} s a run took no more than "
            "the machine draws anyway; it is busy with other things, or a run takes too little to be seen"
        )
    told = {"source": meter.source, "energy_protocol": asdict(protocol), **conditions}
    found = {"gross_j": float(np.median(gross_j)), "idle_w": float(np.median(idle_w))}
    return summarise(Metric.ENERGY_J, net_j, None, timing, told, Provenance.MEASURED, found)


def _take_pair(
    run: Run, meter: EnergyMeter, protocol: EnergyProtocol, clock: Clock, wait: Callable[[float], None]
) -> tuple[float, float, float]:
    """Gross and net joules of a run, and the watts of the idle window before."""
    meter.begin()
    wait(protocol.idle_s)
    idle = meter.end()
    idle_w = idle.joules / idle.seconds
    runs, end = 0, clock() + protocol.window_s
    meter.begin()
    while runs == 0 or clock() < end:
        run()
        runs += 1
    busy = meter.end()
    return busy.joules / runs, (busy.joules - idle_w * busy.seconds) / runs, idle_w
