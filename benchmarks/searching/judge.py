"""What runs of several seeds come to: curves with intervals, and whether the goals are met.

A curve is the share of the true front's hypervolume that was found; what is missing of it is the regret. Intervals hold
95% and are over seeds: Student's of a mean, Welch's of a difference of means, and of a ratio of means by resampling
seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.report.material import mean_and_interval

EARLY, LATE, LONG = 100, 200, 1000
"""Evaluations at which is judged: ours, Optuna's, and random search's."""
COUNTS = tuple(range(0, LATE + 1, 10))
"""Evaluations at which a curve is told."""
RANDOM, TPE, NSGA2 = "random", "optuna tpe", "optuna nsga2"
RESAMPLED = 10_000
MOST_REGRET = 0.25
"""Of TPE's that may be left."""


@dataclass(frozen=True)
class Row:
    """One sampler on one problem.

    Attributes:
        shares: of the true front's hypervolume, by evaluations, a number for each seed.
        repeats: share of the evaluations whose design had been evaluated before.
        sampler_ms: that the sampler itself takes for an evaluation.
    """

    problem: str
    sampler: str
    shares: Mapping[int, Sequence[float]]
    repeats: float
    sampler_ms: float
    commit: str

    def to_json(self) -> dict[str, Any]:
        shares = {str(count): [round(share, 5) for share in found] for count, found in self.shares.items()}
        return {
            "problem": self.problem,
            "sampler": self.sampler,
            "commit": self.commit,
            "repeats": round(self.repeats, 4),
            "sampler_ms": round(self.sampler_ms, 2),
            "shares": shares,
        }


def row_from_json(data: Mapping[str, Any]) -> Row:
    """Inverse of `Row.to_json`."""
    shares = {int(count): found for count, found in data["shares"].items()}
    return Row(data["problem"], data["sampler"], shares, data["repeats"], data["sampler_ms"], data["commit"])


@dataclass(frozen=True)
class Comparison:
    """A figure of a sampler's and what it had to be.

    Attributes:
        value, low, high: the figure and its interval; a difference of shares, or a ratio of regrets.
        is_met: in the mean.
    """

    value: float
    low: float
    high: float
    is_met: bool


@dataclass(frozen=True)
class Verdict:
    """What one sampler has at EARLY evaluations, and how that compares."""

    row: Row
    share: tuple[float, float, float]
    goals: Mapping[str, Comparison] = field(default_factory=dict)


GOALS = (f"- {RANDOM} at {LONG}", f"- {TPE} at {LATE}", f"- {NSGA2} at {LATE}", f"regret / {TPE}'s")


def judge(rows: Sequence[Row]) -> list[Verdict]:
    """A verdict for each row, as far as what it is compared with was played on the same problem."""
    return [Verdict(row, mean_and_interval(row.shares[EARLY]), dict(_goals(row, rows))) for row in rows]


def _goals(row: Row, rows: Sequence[Row]) -> list[tuple[str, Comparison]]:
    played = {other.sampler: other for other in rows if other.problem == row.problem}
    ours = row.shares[EARLY]
    compared = []
    for name, (sampler, count) in zip(GOALS, ((RANDOM, LONG), (TPE, LATE), (NSGA2, LATE)), strict=False):
        if sampler in played:
            compared.append((name, difference(ours, played[sampler].shares[count])))
    if TPE in played:
        regrets = (1 - np.array(shares) for shares in (ours, played[TPE].shares[EARLY]))
        compared.append((GOALS[-1], ratio(*regrets)))
    return compared


def difference(ours: Sequence[float], theirs: Sequence[float]) -> Comparison:
    """Of the means of two samples; met where ours is no smaller."""
    value = float(np.mean(ours) - np.mean(theirs))
    half = _welch_half(np.asarray(ours), np.asarray(theirs))
    return Comparison(value, value - half, value + half, value >= 0)


def _welch_half(*samples: np.ndarray) -> float:
    """Half of the interval of a difference of means (Welch, 1947); 0 where nothing varies, as of one seed."""
    errors = np.array([sample.var(ddof=1) / len(sample) if len(sample) > 1 else 0.0 for sample in samples])
    if not errors.sum() > 0:
        return 0.0
    shares = errors / errors.sum()  # of the variance: squares of the smallest errors would vanish
    freedom = 1 / sum(share**2 / (len(s) - 1) for share, s in zip(shares, samples, strict=True) if share > 0)
    return float(stats.t.ppf(0.975, freedom) * np.sqrt(errors.sum()))


def ratio(ours: np.ndarray, theirs: np.ndarray) -> Comparison:
    """Of the means of two samples above 0; met where it is at most MOST_REGRET."""
    generator = np.random.default_rng(0)
    means = [
        sample[generator.integers(len(sample), size=(RESAMPLED, len(sample)))].mean(axis=1) for sample in (ours, theirs)
    ]
    ratios = means[0] / np.maximum(means[1], 1e-12)
    low, high = np.quantile(ratios, [0.025, 0.975])
    value = float(ours.mean() / max(theirs.mean(), 1e-12))
    return Comparison(value, float(low), float(high), value <= MOST_REGRET)
