"""The timing protocol on machines that are slow for a while, replayed with a clock of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from workers.hardware.timing import DEFAULT_PROTOCOL, Run, time_alone, time_beside

CANDIDATE_S, ANCHOR_S = 0.0001, 0.0003
COLD_CACHE = 1.3

Slowness = Callable[[float], tuple[float, float]]
"""Seconds since the start to the factors by which candidate and anchor are slower."""


@dataclass
class Machine:
    """Two networks that throw each other out of the cache, on a machine that is slower at times.

    Attributes:
        unlucky: numbers of the rounds whose candidate is twice as slow for its life.
    """

    slowness: Slowness = lambda _: (1.0, 1.0)
    unlucky: tuple[int, ...] = ()
    scale: float = 1.0
    now: float = 0.0
    rounds: int = 0
    runs: int = 0
    _last: str = field(default="", repr=False)

    def clock(self) -> float:
        return self.now

    def open(self) -> tuple[Run, Run]:
        luck = 2.0 if self.rounds in self.unlucky else 1.0
        self.rounds += 1
        return lambda: self._run("candidate", CANDIDATE_S * luck), lambda: self._run("anchor", ANCHOR_S)

    def _run(self, name: str, seconds: float) -> None:
        candidate, anchor = self.slowness(self.now)
        factor = candidate if name == "candidate" else anchor
        self.now += seconds * self.scale * factor * (1.0 if name == self._last else COLD_CACHE)
        self._last = name
        self.runs += 1

    def ratio(self) -> float:
        times = time_beside(self.open, DEFAULT_PROTOCOL, self.clock)
        return float(np.median(times[:, 0] / times[:, 1]))


TRUE_RATIO = pytest.approx(CANDIDATE_S / ANCHOR_S, rel=1e-9)


def test_a_quiet_machine_tells_the_ratio_of_warm_caches():
    machine = Machine()
    assert machine.ratio() == TRUE_RATIO
    assert machine.rounds == DEFAULT_PROTOCOL.rounds


@pytest.mark.parametrize("share", [0.3, 0.6, 0.8])
def test_slow_phases_that_hit_the_two_differently_do_not_count(share):
    machine = Machine(lambda now: (1.7, 1.25) if now % 0.2 < share * 0.2 else (1.0, 1.0))
    assert machine.ratio() == TRUE_RATIO


def test_a_long_slow_phase_is_waited_out():
    machine = Machine(lambda now: (1.7, 1.25) if 0.02 < now < 1.5 else (1.0, 1.0))
    assert machine.ratio() == TRUE_RATIO
    assert DEFAULT_PROTOCOL.rounds < machine.rounds < DEFAULT_PROTOCOL.most_rounds


def test_a_machine_that_is_slow_all_the_time_still_tells_the_ratio():
    assert Machine(lambda _: (1.6, 1.6)).ratio() == TRUE_RATIO


def test_one_unlucky_session_does_not_decide():
    assert Machine(unlucky=(1,)).ratio() == TRUE_RATIO


def test_waiting_has_an_end_when_the_machine_never_rests():
    """The anchor jumps at every burst, so that no two bursts agree."""
    random = np.random.default_rng(0)
    machine = Machine(lambda _: (1.0, float(random.uniform(1, 3))))
    machine.ratio()
    assert machine.rounds == DEFAULT_PROTOCOL.most_rounds


def test_slow_networks_get_their_bursts_and_pairs():
    machine = Machine(scale=300.0)  # 30 and 90 ms
    times = time_beside(machine.open, DEFAULT_PROTOCOL, machine.clock)
    assert len(times) == DEFAULT_PROTOCOL.rounds * DEFAULT_PROTOCOL.round_pairs
    assert times[:, 0] == pytest.approx(np.full(len(times), CANDIDATE_S * 300))


def test_alone_the_best_bursts_count():
    machine = Machine(lambda now: (1.7, 1.7) if now % 0.2 < 0.1 else (1.0, 1.0))
    times = time_alone(lambda: machine.open()[0], DEFAULT_PROTOCOL, machine.clock)
    assert np.median(times) == pytest.approx(CANDIDATE_S)
