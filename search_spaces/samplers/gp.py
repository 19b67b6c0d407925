"""Bayesian optimisation with Gaussian processes, by Optuna, which imports torch for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.samplers import GPSampler
from optuna.trial import FrozenTrial

from search_spaces.samplers.optuna_view import OptunaSampler, view
from search_spaces.space import Indices, Space
from search_spaces.spec import SearchSpec

MOST_TRIALS = 200
"""That it is shown: its time grows with the cube of their number, and takes a second with these."""


class GpSampler(OptunaSampler):
    """Draws where the expected improvement of the front is largest, by a process for each objective and for the limits.

    It predicts costs too, which a design alone decides, and which `evolution` computes. Of a longer history it is shown
    the latest trials. The first ten trials are random, told baseline trials included.
    """

    def __init__(self, spec: SearchSpec, space: Space) -> None:
        super().__init__(spec, space)
        self._trials: list[FrozenTrial] = []

    def _add(self, trial: FrozenTrial) -> None:
        self._trials.append(trial)

    def _infer(self, seed: int, running: Sequence[Indices]) -> dict[str, Any]:
        shown = _finite(self._trials[-MOST_TRIALS:])
        open_trials = [self._freeze(self._learnt + i, indices, None, 0.0) for i, indices in enumerate(running)]
        asked = self._freeze(self._learnt + len(open_trials), (0,) * len(self._levels), None, 0.0)
        sampler = GPSampler(seed=seed)
        with _one_thread():
            return sampler.sample_relative(view(self._directions, shown + open_trials), asked, self._distributions)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Its matrices are small: more threads gain little, and beside other work they wait for each other."""
    import torch  # as late as Optuna does: it takes seconds

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _finite(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """What was not worth finding out counts as the worst that was found: processes take no infinity."""
    if not trials:
        return []
    values = np.array([trial.values for trial in trials], dtype=np.float64)
    known = np.isfinite(values)
    if known.all():
        return list(trials)
    finite = np.where(known, values, np.nan)
    kept = known.any(axis=0)
    if not kept.all():  # nothing is known of some objective: there is no worst either
        return [trial for trial, row in zip(trials, known, strict=True) if row.all()]
    filled = np.where(values == np.inf, np.nanmax(finite, axis=0), np.nanmin(finite, axis=0))
    return [_with_values(trial, row) for trial, row in zip(trials, np.where(known, values, filled), strict=True)]


def _with_values(trial: FrozenTrial, values: NDArray[np.float64]) -> FrozenTrial:
    changed = copy(trial)
    changed.values = [float(value) for value in values]
    return changed
