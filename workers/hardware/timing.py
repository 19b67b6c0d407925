"""How fast a network runs, told beside an anchor on a machine that has slow phases of seconds to minutes.

Two facts shape the protocol (`docs/decisions/0006`). Run in turns, two networks throw each other out of the
processor's caches: small ones then seem 8 to 10% slower than they are. So they take turns in bursts, whose first
runs do not count. And slow phases slow networks down by different factors, so that no ratio taken in one is right.
So a burst of the candidate counts when the anchor ran at its own best just before and just after it.

It must not know what a run executes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np

Run = Callable[[], object]
Clock = Callable[[], float]

_FEWEST_CLEAN = 5


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a measurement is taken. It is stored with the result: figures of different protocols do not compare.

    Attributes:
        rounds: each opens candidate and anchor anew, since either may keep an unlucky place in memory for life.
        most_rounds: where slow phases leave fewer than `clean_pairs`, so many rounds are taken at the most.
        round_s, round_pairs: a round lasts so long, and until it has so many pairs of bursts.
        burst_s, burst_runs: a burst lasts so long, and until it has so many runs; its median counts.
        discarded_runs: before a burst counts.
        clean_within: the anchor is at its best when a burst is at most this share above its fastest one.
        samples_kept: at most so many values are kept as they are.
        batch: images of one inference.
        threads: that the runtime may use.
    """

    rounds: int = 3
    most_rounds: int = 9
    clean_pairs: int = 12
    round_s: float = 0.35
    round_pairs: int = 4
    burst_s: float = 0.008
    burst_runs: int = 3
    discarded_runs: int = 2
    clean_within: float = 0.03
    samples_kept: int = 200
    batch: int = 1
    threads: int = 1


DEFAULT_PROTOCOL = Protocol()


def time_beside(
    open_runs: Callable[[], tuple[Run, Run]], protocol: Protocol, clock: Clock = perf_counter
) -> np.ndarray:
    """Seconds of candidate and anchor, (n, 2), n >= 1: one row for each clean burst of the candidate.

    Args:
        open_runs: opens candidate and anchor anew; called once a round.
        protocol: see there.
        clock: seconds, monotonic.
    """
    bursts = np.empty((0, 3))
    for number in range(1, protocol.most_rounds + 1):
        bursts = np.concatenate([bursts, _take_round(*open_runs(), protocol, clock)])
        clean = _clean(bursts, protocol)
        if number >= protocol.rounds and len(clean) >= protocol.clean_pairs:
            break
    return np.stack([clean[:, 0], clean[:, 1:].mean(axis=1)], axis=1)


def time_alone(open_run: Callable[[], Run], protocol: Protocol, clock: Clock = perf_counter) -> np.ndarray:
    """Seconds of each clean burst, (n,), n >= 1, of what is its own witness."""

    def open_twice() -> tuple[Run, Run]:
        run = open_run()
        return run, run

    return time_beside(open_twice, protocol, clock)[:, 0]


def _take_round(candidate: Run, anchor: Run, protocol: Protocol, clock: Clock) -> np.ndarray:
    """Burst medians, (n, 3): the candidate, and the anchor before and after it."""
    _burst(candidate, protocol, clock)  # the first runs of all take longer
    before = _burst(anchor, protocol, clock)
    rows: list[tuple[float, float, float]] = []
    end = clock() + protocol.round_s
    while len(rows) < protocol.round_pairs or clock() < end:
        measured = _burst(candidate, protocol, clock)
        after = _burst(anchor, protocol, clock)
        rows.append((measured, before, after))
        before = after
    return np.array(rows)


def _burst(run: Run, protocol: Protocol, clock: Clock) -> float:
    """Median seconds of the runs that count."""
    for _ in range(protocol.discarded_runs):
        run()
    times: list[float] = []
    end = clock() + protocol.burst_s
    while len(times) < protocol.burst_runs or clock() < end:
        start = clock()
        run()
        times.append(clock() - start)
    return float(np.median(times))


def _clean(bursts: np.ndarray, protocol: Protocol) -> np.ndarray:
    """The rows whose anchor was at its best on both sides; the best few where hardly any was."""
    worst = bursts[:, 1:].max(axis=1)
    is_clean = worst <= bursts[:, 1:].min() * (1 + protocol.clean_within)
    rows = np.flatnonzero(is_clean)
    if len(rows) < _FEWEST_CLEAN:
        rows = np.argsort(worst, kind="stable")[:_FEWEST_CLEAN]
    return np.take(bursts, rows, axis=0)
