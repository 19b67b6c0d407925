"""The energy counters of this machine's processor (RAPL, on Intel and AMD), read by zeus. An optional package.

A counter is of a whole package, with its memory where that has a counter of its own. Virtual machines have none, and
usually only root may read them.
"""

from __future__ import annotations

import os
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from workers.hardware.base import Deployed, MeasurementResult
from workers.hardware.energy import EnergyProtocol, Window, measure_energy
from workers.hardware.processor import OpenRun, is_pinnable, undisturbed
from workers.hardware.timing import Protocol

COUNTERS = Path("/sys/class/powercap/intel-rapl")
COUNTERS_IN_CONTAINERS = Path("/zeus_sys/class/powercap/intel-rapl")
"""Where zeus has them mounted."""
DAEMON_SETTINGS = ("ZEUSD_SOCK_PATH", "ZEUSD_HOST_PORT")
"""How zeus's daemon, which may read them, is found by who may not."""

_KEY = "espalier"


def why_no_energy() -> str:
    """Why this machine's energy cannot be told, and the remedy; empty where it can. Loads nothing."""
    zones = packages()
    if not zones:
        return "this machine has no energy counter that can be read, as most virtual machines"
    if find_spec("zeus") is None:
        return "the energy counters of this machine are read by zeus: pip install 'espalier[energy]'"
    is_served = any(os.environ.get(name) for name in DAEMON_SETTINGS)
    closed = [zone for zone in zones.values() if not os.access(zone / "energy_uj", os.R_OK)]
    if closed and not is_served:
        return f"this worker may not read {closed[0] / 'energy_uj'}: run it as root, or beside zeus's daemon, zeusd"
    return ""


def packages() -> dict[int, Path]:
    """The counters of whole processors, by zeus's number: never one that has others in it, such as the platform's."""
    folder = COUNTERS if COUNTERS.exists() else COUNTERS_IN_CONTAINERS
    numbers = (path.name.partition(":")[2] for path in folder.glob("intel-rapl:*"))
    zones = [folder / f"intel-rapl:{number}" for number in sorted(int(one) for one in numbers if one.isdigit())]
    return {number: zone for number, zone in enumerate(zones) if _name(zone).startswith("package")}


class ProcessorMeter:
    """All packages' counters together."""

    source = "RAPL by zeus: processor packages, and memory where it is counted"

    def __init__(self) -> None:
        from zeus.monitor import ZeusMonitor  # optional, and seconds to load

        self._monitor: Any = ZeusMonitor(gpu_indices=[], cpu_indices=list(packages()))

    def begin(self) -> None:
        self._monitor.begin_window(_KEY, sync_execution=False, restart=True)

    def end(self) -> Window:
        found = self._monitor.end_window(_KEY, sync_execution=False)
        told = (found.cpu_energy or {}, found.dram_energy or {})
        return Window(found.time, sum(sum(one.values()) for one in told))


def energy_of_file(deployed: Deployed, protocol: Protocol, open_run: OpenRun, runtime: str) -> MeasurementResult:
    """Joules of one inference of a file on this machine's processor.

    Raises:
        EnergyUnreadableError: see `measure_energy`.
    """
    conditions = {"runtime": runtime, "pinned": is_pinnable(protocol)}
    meter = _meter()
    with undisturbed(protocol):
        run = open_run(deployed.model, protocol)
        return measure_energy(run, meter, EnergyProtocol(), protocol, conditions)


@lru_cache(maxsize=1)
def _meter() -> ProcessorMeter:
    """One for the life of the process: zeus starts processes that watch for counters that wrap around."""
    return ProcessorMeter()


def _name(zone: Path) -> str:
    try:
        return (zone / "name").read_text().strip()
    except OSError:
        return ""
