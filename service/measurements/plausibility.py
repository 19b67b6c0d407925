"""Whether a figure can be what it says: compared with how much a workload computes and moves.

The rule, for latency and energy of workloads whose signature tells their work; others are counted as unchecked.

- No chip computes more than 1e15 MAC/s or moves more than 1e14 bytes/s, or takes less than 1e-16 J for a MAC.
- Nothing that a search would target takes longer than 10 ms and what 1e7 MAC/s and 1e7 bytes/s take together, or more
  energy than 0.1 J and 1e-7 J for each MAC and 1e-8 J for each byte.
- Where most checked figures of a metric are outside on one side, it is the unit that is wrong: the file is refused with
  the likely one. A few are refused by their rows.
- Where the service has figures of the same device and metric, the file's must not be 300 times theirs, or a 300th, by
  the median of figure / work: units are wrong by 1,000, and a fast device given in ms is not slower than all others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from search_spaces.faults import Fault
from search_spaces.objectives import Metric
from search_spaces.signatures import Work
from service.measurements.faults import RowFaults, refuse_table

FEWEST_KNOWN = 5
FARTHEST_FROM_KNOWN = 300.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """Per MAC and per byte, in the metric's unit; `most` includes what is always taken."""

    least_per_mac: float
    least_per_byte: float
    most_per_mac: float
    most_per_byte: float
    most_at_least: float

    def least(self, macs: np.ndarray, moved_bytes: np.ndarray) -> np.ndarray:
        return np.maximum(macs * self.least_per_mac, moved_bytes * self.least_per_byte)

    def most(self, macs: np.ndarray, moved_bytes: np.ndarray) -> np.ndarray:
        return self.most_at_least + macs * self.most_per_mac + moved_bytes * self.most_per_byte


BOUNDS = {
    Metric.LATENCY_S: Bounds(1e-15, 1e-14, 1e-7, 1e-7, 1e-2),
    Metric.ENERGY_J: Bounds(1e-16, 0.0, 1e-7, 1e-8, 1e-1),
}


def check_values(metric: Metric, rows: np.ndarray, values: np.ndarray, works: np.ndarray, faults: RowFaults) -> None:
    """Compare figures of one metric with their work.

    Args:
        metric: of all of them.
        rows: (n,) their numbers.
        values: (n,) in the metric's unit.
        works: (n, 2) MACs and bytes of one inference's batch; NaN where they are not known.
        faults: is told of a few that cannot be.

    Raises:
        InvalidTableError: most of them cannot be, so that it is the unit.
    """
    bounds = BOUNDS.get(metric)
    if bounds is None:
        return
    macs, moved = works[:, 0], works[:, 1]
    checked = ~np.isnan(macs)
    small, large = values < bounds.least(macs, moved), values > bounds.most(macs, moved)
    for outside, ratio in ((large, 1e3), (small, 1e-3)):
        if 2 * np.count_nonzero(outside) > np.count_nonzero(checked):
            raise _wrong_unit(metric, int(np.count_nonzero(outside)), int(np.count_nonzero(checked)), ratio)
    for outside, what in ((large, "more"), (small, "less")):
        bad = np.flatnonzero(outside)
        if len(bad):
            message = f"{{}} is {what} than {metric} of such work can be; is the unit right?"
            faults.add(rows[bad], str(metric), message, values[bad[:20]].tolist())


def per_work(values: np.ndarray, works: np.ndarray) -> np.ndarray:
    """Figures by what a device of 1e12 MAC/s and 1e11 bytes/s would take, of those whose work is known."""
    nominal = works[:, 0] * 1e-12 + works[:, 1] * 1e-11
    fitting = nominal > 0
    found: np.ndarray = values[fitting] / nominal[fitting]
    return found


def check_against_known(metric: Metric, device: str, given: np.ndarray, known: np.ndarray) -> None:
    """Compare what a file says of a device with what the service has of it, both by work.

    Raises:
        InvalidTableError: they are far from each other.
    """
    if min(len(given), len(known)) < FEWEST_KNOWN:
        return
    ratio = float(np.median(given) / np.median(known))
    if 1 / FARTHEST_FROM_KNOWN < ratio < FARTHEST_FROM_KNOWN:
        return
    how = f"{ratio:,.0f} times" if ratio > 1 else f"1 / {1 / ratio:,.0f} of"
    raise refuse_table(
        f"{metric} of {device} is {how} what this service has of it, by the work done: {_advice(metric, ratio)}",
        Fault("/settings/unit", _advice(metric, ratio)),
    )


def work_array(works: Sequence[Work | None]) -> np.ndarray:
    """(n, 3) MACs, bytes, and bytes of weights among them; NaN where unknown."""
    unknown = (np.nan, np.nan, np.nan)
    found = [unknown if one is None else (one.macs, one.moved_bytes, one.weight_bytes) for one in works]
    return np.array(found, np.float64).reshape(len(found), 3)


def at_batch(works: np.ndarray, batches: np.ndarray) -> np.ndarray:
    """(n, 2) MACs and bytes of one inference: of more images the same weights are moved.

    Args:
        works: (n, 3), see `work_array`.
        batches: (n,) images of one inference.
    """
    macs, moved, weights = works.T
    return np.stack([macs * batches, (moved - weights) * batches + weights], axis=1)


def network_work(digests: Sequence[str], works: Mapping[str, Work | None]) -> Work | None:
    """Of a network, by its operators; None when one of them is not known."""
    total = Work(0.0, 0.0)
    for digest in digests:
        one = works.get(digest)
        if one is None:
            return None
        total = total + one
    return total if digests else None


def _wrong_unit(metric: Metric, outside: int, checked: int, ratio: float) -> Exception:
    advice, size = _advice(metric, ratio), "large" if ratio > 1 else "small"
    return refuse_table(
        f"{outside:,} of {checked:,} values are too {size} to be {metric} of such work: {advice}",
        Fault("/settings/unit", advice),
    )


def _advice(metric: Metric, ratio: float) -> str:
    """Which unit the values are likely to be in, when they are so many times too large."""
    names = ("s", "ms", "us", "ns") if metric is Metric.LATENCY_S else ("J", "mJ", "uJ", "nJ")
    steps = min(max(round(np.log10(ratio) / 3), -3), 3)
    if steps > 0:
        return f"they are likely to be in {names[steps]} and were taken for {names[0]}, or a step of 1,000 like it"
    return f"they are likely to be in a unit {1000**-steps:,} times larger than what they were taken for"
