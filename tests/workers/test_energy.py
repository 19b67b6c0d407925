"""Energy: the protocol on a machine whose power is known, and zeus's own code on counters that a test moves."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import zeus.device.cpu
from zeus.device.cpu import rapl

from search_spaces.objectives import Metric
from search_spaces.precision import FP32
from workers.hardware import processor_device, processor_energy
from workers.hardware.base import Provenance
from workers.hardware.energy import EnergyProtocol, EnergyUnreadableError, Window, measure_energy
from workers.hardware.onnxruntime_cpu import OnnxRuntimeCpu
from workers.hardware.processor_energy import ProcessorMeter, packages, why_no_energy
from workers.hardware.testing import QUICK, deploy, small_network

RUN_S, RUN_J, IDLE_W = 0.002, 0.03, 20.0
PROTOCOL = EnergyProtocol()


@dataclass
class Machine:
    """Draws IDLE_W whatever it does, and RUN_J for each run on top of that.

    Attributes:
        counter: what a counter shows of the joules that were really drawn.
        disturbance_w: what something else draws at a time.
    """

    counter: Callable[[float], float] = lambda joules: joules
    disturbance_w: Callable[[float], float] = lambda now: 0.0
    now: float = 0.0
    joules: float = 0.0
    source: str = "a test"
    _began: tuple[float, float] = field(default=(0.0, 0.0), repr=False)

    def run(self) -> None:
        self.joules += RUN_J
        self.wait(RUN_S)

    def wait(self, seconds: float) -> None:
        self.joules += (IDLE_W + self.disturbance_w(self.now)) * seconds
        self.now += seconds

    def clock(self) -> float:
        return self.now

    def begin(self) -> None:
        self._began = (self.now, self.counter(self.joules))

    def end(self) -> Window:
        return Window(self.now - self._began[0], self.counter(self.joules) - self._began[1])

    def measure(self):
        return measure_energy(self.run, self, PROTOCOL, QUICK, {"runtime": "a"}, clock=self.clock, wait=self.wait)


def test_what_is_told_is_net_of_what_is_drawn_anyway():
    result = Machine().measure()
    assert result.metric is Metric.ENERGY_J
    assert result.median == pytest.approx(RUN_J)
    assert result.evidence["gross_j"] == pytest.approx(RUN_J + IDLE_W * RUN_S)
    assert result.evidence["idle_w"] == pytest.approx(IDLE_W)
    assert (result.protocol["source"], result.protocol["runtime"]) == ("a test", "a")
    assert result.protocol["energy_protocol"]["window_s"] == PROTOCOL.window_s
    assert result.count == PROTOCOL.windows
    assert result.provenance is Provenance.MEASURED


def test_a_counter_that_moves_in_steps_is_good_enough_in_long_windows():
    step_j = 0.5
    result = Machine(counter=lambda joules: joules // step_j * step_j).measure()
    runs = PROTOCOL.window_s / RUN_S
    assert result.median == pytest.approx(RUN_J, abs=2 * step_j / runs)


def test_a_window_in_which_the_counter_wraps_around_does_not_count():
    result = Machine(counter=lambda joules: joules % 150).measure()
    assert 3 <= result.count < PROTOCOL.windows
    assert result.median == pytest.approx(RUN_J)


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        (Machine(counter=lambda _: 7.0), "in 0 of 5 windows"),
        (Machine(disturbance_w=lambda now: 40.0 if now % 2 < 1 else 0.0), "no more than the machine draws anyway"),
    ],
    ids=["a counter that stands still", "something else that runs in idle windows only"],
)
def test_what_cannot_be_believed_is_no_measurement(machine: Machine, reason: str):
    with pytest.raises(EnergyUnreadableError, match=reason):
        machine.measure()


def test_windows_that_are_off_downwards_count_like_those_that_are_off_upwards():
    """Something else runs now and then, by turns in idle windows and in others: it cancels out in the median only."""
    disturbed_w = {1: 40.0, 3: 40.0, 4: 40.0, 8: 40.0}  # by seconds since the start: two idle windows, two others
    machine = Machine(disturbance_w=lambda now: disturbed_w.get(int(now - 0.02), 0.0))
    result = machine.measure()
    assert result.count == PROTOCOL.windows
    assert min(result.samples) < 0 < RUN_J < max(result.samples)
    assert result.median == pytest.approx(RUN_J, rel=0.1)


def test_one_inference_may_take_longer_than_a_window():
    machine = Machine()
    slow = replace(PROTOCOL, window_s=RUN_S / 10)
    result = measure_energy(machine.run, machine, slow, QUICK, {}, clock=machine.clock, wait=machine.wait)
    assert result.median == pytest.approx(RUN_J)


@dataclass
class Zone:
    """A counter's folder, as the kernel lays it out; written at once, so that no reader sees half a number."""

    folder: Path
    name: str
    uj: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        (self.folder / "name").write_text(f"{self.name}\n")
        (self.folder / "max_energy_range_uj").write_text("1000000\n")
        self.add(0)

    def add(self, uj: int) -> None:
        self.uj = (self.uj + uj) % 1_000_000
        fresh = self.folder / "fresh"
        fresh.write_text(f"{self.uj}\n")
        os.replace(fresh, self.folder / "energy_uj")


class Watcher:
    """Stands for the process of zeus's that counts how often a counter has begun anew."""

    wraparounds = 0

    def __init__(self, *_: object) -> None:
        pass

    def get_num_wraparounds(self) -> int:
        return Watcher.wraparounds


@pytest.fixture
def counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for counters, which zeus and Espalier take for the kernel's."""
    folder = tmp_path / "intel-rapl"
    monkeypatch.setattr(rapl, "RAPL_DIR", str(folder))
    monkeypatch.setattr(rapl, "RaplWraparoundTracker", Watcher)
    monkeypatch.setattr(Watcher, "wraparounds", 0)
    monkeypatch.setattr(zeus.device.cpu, "_cpus", None)
    monkeypatch.setattr(processor_energy, "COUNTERS", folder)
    monkeypatch.setattr(processor_energy, "COUNTERS_IN_CONTAINERS", tmp_path / "none")
    for name in processor_energy.DAEMON_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    caches = (rapl.rapl_is_available, processor_energy._meter, processor_device._capabilities)
    for cache in caches:
        cache.cache_clear()
    yield folder
    for cache in caches:
        cache.cache_clear()


def test_zeus_adds_up_packages_and_their_memory_and_leaves_the_platform_out(counters: Path):
    zones = [Zone(counters / f"intel-rapl:{number}", name) for number, name in enumerate(("package-0", "psys"))]
    memory = Zone(counters / "intel-rapl:0" / "intel-rapl:0:0", "dram")
    assert list(packages()) == [0]
    meter = ProcessorMeter()
    meter.begin()
    for zone, joules in ((zones[0], 3), (zones[1], 100), (memory, 2)):
        zone.add(joules * 100_000)
    assert meter.end().joules == pytest.approx(0.5)


def test_zeus_sees_through_a_counter_that_begins_anew(counters: Path):
    zone = Zone(counters / "intel-rapl:0", "package-0", uj=900_000)
    meter = ProcessorMeter()
    meter.begin()
    zone.add(300_000)
    Watcher.wraparounds += 1
    assert meter.end().joules == pytest.approx(0.3)


def test_local_cpu_tells_energy_where_there_is_a_counter(counters: Path, monkeypatch: pytest.MonkeyPatch):
    zone = Zone(counters / "intel-rapl:0", "package-0")
    quick = EnergyProtocol(windows=3, window_s=0.01, idle_s=0.01, warm_runs=1)
    monkeypatch.setattr(processor_energy, "EnergyProtocol", lambda: quick)
    opened = OnnxRuntimeCpu.open

    def metered(*arguments):
        run = opened(*arguments)
        return lambda: (run(), zone.add(50))

    monkeypatch.setattr(OnnxRuntimeCpu, "open", metered)
    device = OnnxRuntimeCpu()
    assert set(device.capabilities().metrics) == {Metric.LATENCY_S, Metric.ENERGY_J}
    found = device.measure(deploy(small_network(FP32)), None, QUICK)[Metric.ENERGY_J]
    assert found.median == pytest.approx(50e-6)
    assert found.evidence["idle_w"] == 0
    assert "RAPL" in found.protocol["source"]


def test_a_machine_without_counters_says_so(counters: Path):
    assert "no energy counter" in why_no_energy()
    assert "no energy counter" in OnnxRuntimeCpu().capabilities().unavailable[Metric.ENERGY_J]


def test_counters_without_zeus_are_told_with_the_remedy(counters: Path, monkeypatch: pytest.MonkeyPatch):
    Zone(counters / "intel-rapl:0", "package-0")
    assert why_no_energy() == ""
    monkeypatch.setattr(processor_energy, "find_spec", lambda _: None)
    assert "pip install 'espalier[energy]'" in why_no_energy()


def test_a_worker_that_may_not_read_them_says_so(counters: Path, monkeypatch: pytest.MonkeyPatch):
    Zone(counters / "intel-rapl:0", "package-0")
    monkeypatch.setattr(os, "access", lambda *_: False)  # tests may run as root, who may read everything
    assert "may not read" in why_no_energy()
    assert "zeusd" in why_no_energy()
    monkeypatch.setenv("ZEUSD_SOCK_PATH", "/run/zeusd.sock")
    assert why_no_energy() == ""
