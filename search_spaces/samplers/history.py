"""What was found so far, as samplers use it that look ahead: designs, their objectives, and a predictor of more."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from search_spaces.foreseen import ForeseenLimits
from search_spaces.objectives import Direction, TrialState
from search_spaces.samplers.base import ToldTrial
from search_spaces.samplers.predictor import Numbers, Predictor
from search_spaces.samplers.worth import Worth
from search_spaces.space import Indices, Space
from search_spaces.spec import SearchSpec

PREDICTED = "predicted"
"""In the memo of a proposal: what was predicted of it, by metric, in the metric's own unit."""
_ROOM = 256
"""Trials that there is room for at first; it is doubled."""


class History:
    """Of one search.

    Attributes:
        rows: designs of the trials that have all objectives.
    """

    def __init__(self, spec: SearchSpec, space: Space, foreseen: ForeseenLimits) -> None:
        self._spec, self._foreseen = spec, foreseen
        self._predictor = Predictor(spec, space, foreseen)
        self._signs = np.array([-1.0 if one.direction is Direction.MAXIMIZE else 1.0 for one in spec.objectives])
        self.rows: list[Indices] = []
        self._points = np.empty((_ROOM, len(spec.objectives)))

    def judge(self, trial: ToldTrial) -> None:
        """Compare what was predicted of a trial with what it found, where it was evaluated in full."""
        if trial.state is TrialState.SUCCEEDED:  # what a stopped one was expected to find is no finding
            self._predictor.judge(trial.memo.get(PREDICTED, {}), trial.values)

    def add(self, trial: ToldTrial, indices: Indices, sizes: Callable[[], Numbers]) -> None:
        """Learn from a trial; `sizes` tells how much each decision matters."""
        if trial.state is TrialState.FAILED:
            return
        self._predictor.add(indices, trial.values, sizes)
        values = [trial.values.get(one.metric, np.nan) for one in self._spec.objectives]
        if trial.state is TrialState.SUCCEEDED and np.isfinite(values).all():
            if len(self.rows) == len(self._points):
                self._points = np.concatenate([self._points, np.empty_like(self._points)])
            self._points[len(self.rows)] = self._signs * values
            self.rows.append(indices)

    @property
    def points(self) -> Numbers:
        """Objectives of the `rows`, all to be minimised, (trials, objectives)."""
        return self._points[: len(self.rows)]

    @property
    def can_rank(self) -> bool:
        """Whether there is enough to rank designs by, and it was not found to rank poorly."""
        return len(self.rows) >= 2 and (self._predictor.is_trusted or not self._predictor.metrics)

    def worth(self, running: Sequence[Indices], generator: np.random.Generator) -> Worth:
        """Tells what designs are worth now; see `can_rank`."""
        return Worth(self._spec, self._foreseen, self._predictor, self.points, running, generator)

    def predicted(self, indices: Indices) -> dict[str, float]:
        """What is thought of a design, by metric; nothing while too little is known."""
        if not self._predictor.is_ready:
            return {}
        return {metric: float(one.at(0.0)[0]) for metric, one in self._predictor.predict([indices]).items()}


def first_unused(rows: NDArray[np.int64], worth: Numbers, taken: Callable[[Indices], bool]) -> Indices | None:
    """The most worth of those that were not tried; None where all were."""
    for place in np.argsort(-worth, kind="stable"):
        indices = tuple(map(int, rows[place]))
        if not taken(indices):
            return indices
    return None
