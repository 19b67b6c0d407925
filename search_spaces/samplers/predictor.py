"""Predicts what a trial would find of a design, from those that finished: a process for each metric to be learned.

What follows from the design alone (sizes, operations, closed forms of devices) is never predicted, it is computed. A
score is learned as log-odds where it is a share, a latency or an energy as its logarithm. It must not propose designs.

Its worth is judged by what was predicted before trials ran: while the rank correlation of predicted and found scores
over the last of them is poor, `is_trusted` says so, and samplers go on without it until it is better.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search_spaces.foreseen import ForeseenLimits
from search_spaces.network import infer_shapes
from search_spaces.objectives import DEVICE_METRICS, Direction, Metric
from search_spaces.quality import is_share, main_score, to_log_odds
from search_spaces.rank_correlation import JUDGED_TRIALS, LEAST_CORRELATION, spearman
from search_spaces.samplers.encoding import Encoding
from search_spaces.samplers.gaussian_process import GaussianProcess, Hyperparameters, Inputs, choose
from search_spaces.space import Indices, Space
from search_spaces.spec import ObjectiveSpec, SearchSpec

Numbers = NDArray[np.float64]
Rows = Sequence[Indices] | NDArray[np.int64]

FEWEST_TRIALS = 4
MOST_TRIALS = 256
"""That a process is fitted to: half of them the best, the others spread over all that was told."""
REFIT_GROWTH = 1.2
"""Hyperparameters are chosen again when so many times as many trials were told."""


@dataclass(frozen=True)
class Scale:
    """How a metric is learned: on a scale on which what happens to it adds up."""

    learned: Callable[[float], float]
    told: Callable[[Numbers], Numbers]


_AS_IT_IS = Scale(float, lambda values: values)
# Far from what was found a prediction may be anything: neither of the two may overflow.
_LOG_ODDS = Scale(to_log_odds, lambda values: np.exp(-np.logaddexp(0.0, -values)))
_LOGARITHM = Scale(lambda value: math.log(max(value, 1e-30)), lambda values: np.exp(np.clip(values, -700.0, 700.0)))


def scale_of(metric: str) -> Scale:
    if metric in DEVICE_METRICS:
        return _LOGARITHM
    return _LOG_ODDS if is_share(ObjectiveSpec(metric=metric, direction=Direction.MAXIMIZE)) else _AS_IT_IS


@dataclass(frozen=True)
class Prediction:
    """Of one metric, on its own scale, (designs,)."""

    mean: Numbers
    deviation: Numbers
    scale: Scale

    def at(self, normal: float) -> Numbers:
        """So many standard deviations from the mean, in the metric's own unit."""
        return self.scale.told(self.mean + normal * self.deviation)


NO_BETTER = 0.05
"""Than guessing: what a score is at most above it, of what there is above it."""


def _floors(metrics: Sequence[str], space: Space) -> dict[str, float]:
    """Below which a score of classes says nothing more, by metric, on the scale on which it is learned."""
    outputs = infer_shapes(space.network)[space.network.output]
    guessed = 1 / max(outputs[0], 2)
    floor = guessed + NO_BETTER * (1 - guessed)
    return {metric: scale_of(metric).learned(floor) for metric in metrics if metric in _OF_CLASSES}


_OF_CLASSES = frozenset({Metric.ACCURACY, "balanced_accuracy"})


def _less_is_better(spec: SearchSpec, metrics: Sequence[str]) -> bool:
    """Of the first of the metrics: an objective, or else what a limit is on."""
    for objective in spec.objectives:
        if objective.metric in metrics:
            return objective.direction is Direction.MINIMIZE
    return any(limit.metric == metrics[0] and limit.max is not None for limit in spec.limits) if metrics else False


@dataclass(frozen=True)
class _Fitted:
    """A process and what it was fitted to: `targets` are what is believed where a score says little."""

    process: GaussianProcess
    inputs: Inputs
    targets: Numbers


class Predictor:
    """Of one search."""

    def __init__(self, spec: SearchSpec, space: Space, foreseen: ForeseenLimits) -> None:
        named = [one.metric for one in spec.objectives] + [one.metric for one in spec.limits]
        self.metrics = tuple(dict.fromkeys(name for name in named if name not in foreseen.costs.metrics))
        score = main_score(spec)
        self._judged_by = str(score.metric) if score is not None else next(iter(self.metrics), "")
        self._less_is_better = _less_is_better(spec, self.metrics)
        self._encode = Encoding(space.decisions)
        self._scales = {metric: scale_of(metric) for metric in self.metrics}
        self._floors = _floors(self.metrics, space)
        self._rows: list[Indices] = []
        self._values: list[list[float]] = []
        self._checkpoint: tuple[int, Numbers] | None = None
        self._chosen: tuple[int, dict[str, Hyperparameters]] = (0, {})
        self._fitted: tuple[int, dict[str, _Fitted]] | None = None
        self._judged: deque[tuple[float, float]] = deque(maxlen=JUDGED_TRIALS)

    def add(self, indices: Indices, values: Mapping[str, float], sizes: Callable[[], Numbers]) -> None:
        """Learn from a trial that has all metrics; others are left out.

        Args:
            indices: of its design.
            values: that it found.
            sizes: tells how much each decision matters; asked now and then.
        """
        found = [values.get(metric, math.nan) for metric in self.metrics]
        if not all(map(math.isfinite, found)):
            return
        self._rows.append(indices)
        self._values.append([self._scales[m].learned(value) for m, value in zip(self.metrics, found, strict=True)])
        # What a process is like follows from the trials up to here; whoever is told thousands chooses it only once.
        if len(self._rows) >= max(FEWEST_TRIALS, REFIT_GROWTH * (self._checkpoint[0] if self._checkpoint else 0)):
            self._checkpoint = (len(self._rows), sizes())

    def judge(self, predicted: Mapping[str, float], values: Mapping[str, float]) -> None:
        """Compare what was predicted of a trial before it ran with what it found: the score, if one is an objective."""
        if self._judged_by in predicted and self._judged_by in values:
            self._judged.append((predicted[self._judged_by], values[self._judged_by]))

    @property
    def rank_correlation(self) -> float | None:
        """Spearman's, over the trials judged last; None while there are too few."""
        return spearman(self._judged)

    @property
    def is_trusted(self) -> bool:
        """Whether it can be asked, and was not found to be poor."""
        correlation = self.rank_correlation
        return self._checkpoint is not None and (correlation is None or correlation >= LEAST_CORRELATION)

    @property
    def is_ready(self) -> bool:
        return self._checkpoint is not None or not self.metrics

    def predict(self, rows: Rows, running: Sequence[Indices] = ()) -> dict[str, Prediction]:
        """Of each design, by metric. Those of `running` designs are taken to be as predicted, and so known."""
        if not self.metrics:
            return {}
        inputs, fitted = self._inputs(rows), self._processes()
        processes = {metric: one.process for metric, one in fitted.items()}
        if running:
            processes = {metric: self._believing(metric, one, running) for metric, one in fitted.items()}
        return {metric: Prediction(*one.predict(inputs), self._scales[metric]) for metric, one in processes.items()}

    def _inputs(self, rows: Rows) -> Inputs:
        assert self._checkpoint is not None, "it is not ready"
        return self._encode(rows, self._checkpoint[1])

    def _hyperparameters(self) -> dict[str, Hyperparameters]:
        """The likeliest of the trials up to the last checkpoint."""
        assert self._checkpoint is not None, "it is not ready"
        count = self._checkpoint[0]
        if self._chosen[0] != count:
            inputs, targets = self._evidence(count)
            found = {
                metric: choose(*self._told(metric, inputs, targets[:, column]))
                for column, metric in enumerate(self.metrics)
            }
            self._chosen = (count, found)
        return self._chosen[1]

    def _evidence(self, count: int) -> tuple[Inputs, Numbers]:
        """Inputs and targets, (trials, metrics), of the first `count` trials, or of some of them."""
        members = self._members(count)
        inputs = self._inputs([self._rows[member] for member in members])
        return inputs, np.array([self._values[member] for member in members])

    def _processes(self) -> dict[str, _Fitted]:
        if self._fitted is None or self._fitted[0] != len(self._rows):
            chosen, (inputs, targets) = self._hyperparameters(), self._evidence(len(self._rows))
            fitted = {
                metric: self._fit(metric, inputs, targets[:, column], chosen[metric])
                for column, metric in enumerate(self.metrics)
            }
            self._fitted = (len(self._rows), fitted)
        return self._fitted[1]

    def _fit(self, metric: str, inputs: Inputs, targets: Numbers, chosen: Hyperparameters) -> _Fitted:
        """A score that is no better than guessing says that a design is at most so good, not how bad it is.

        What the others foretell of it is believed where that is worse (one step of fitting censored data).
        """
        is_told = targets > self._floors.get(metric, -math.inf)
        if is_told.all() or is_told.sum() < FEWEST_TRIALS:
            return _Fitted(GaussianProcess(inputs, targets, chosen), inputs, targets)
        told = GaussianProcess(inputs[np.flatnonzero(is_told)], targets[is_told], chosen)
        lost = inputs[np.flatnonzero(~is_told)]
        believed = targets.copy()
        believed[~is_told] = np.minimum(targets[~is_told], told.predict(lost)[0])
        return _Fitted(GaussianProcess(inputs, believed, chosen), inputs, believed)

    def _believing(self, metric: str, fitted: _Fitted, running: Sequence[Indices]) -> GaussianProcess:
        theirs = self._inputs(running)
        targets = np.concatenate([fitted.targets, fitted.process.predict(theirs)[0]])
        return GaussianProcess(fitted.inputs.joined(theirs), targets, self._hyperparameters()[metric])

    def _told(self, metric: str, inputs: Inputs, targets: Numbers) -> tuple[Inputs, Numbers]:
        """Those that are better than guessing, if there are some."""
        is_told = np.flatnonzero(targets > self._floors.get(metric, -math.inf))
        return (inputs[is_told], targets[is_told]) if len(is_told) >= FEWEST_TRIALS else (inputs, targets)

    def _members(self, count: int) -> list[int]:
        """Which of the first `count` trials a process is fitted to: all, or the best and a spread of the others."""
        if count <= MOST_TRIALS:
            return list(range(count))
        first = np.array([row[0] for row in self._values[:count]])
        best = np.argsort(first if self._less_is_better else -first, kind="stable")[: MOST_TRIALS // 2]
        spread = np.linspace(0, count - 1, MOST_TRIALS // 2).astype(np.intp)
        return sorted({*map(int, best), *map(int, spread)})
