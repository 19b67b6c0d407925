"""Our history as Optuna sees it: a study that is a view of told trials, and what its samplers share here.

Optuna is a pure sampler for us. Its study is never written to, holds no trial of its own and copies none, so that an
`ask` costs what the sampler's own arithmetic costs. Everything random is drawn from (seed, trial number).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Container, Sequence, Set
from datetime import UTC, datetime
from typing import Any, NoReturn

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from search_spaces.design import METHOD_KINDS
from search_spaces.objectives import Direction, TrialState
from search_spaces.samplers.base import ToldTrial
from search_spaces.samplers.indexed import IndexedSampler
from search_spaces.samplers.unused import random_indices
from search_spaces.space import Decision, Indices, Space
from search_spaces.spec import ObjectiveSpec, SearchSpec

_DIRECTIONS = {Direction.MAXIMIZE: StudyDirection.MAXIMIZE, Direction.MINIMIZE: StudyDirection.MINIMIZE}
_STUDY_ID, _STUDY_NAME = 0, "view"
_NO_TIME = datetime.fromtimestamp(0, tz=UTC)  # Optuna wants times; none of its samplers used here reads them.
_CONSTRAINT = "limits"
_WITH_VALUES = (TrialState.SUCCEEDED, TrialState.STOPPED)
_METHODS_DRAWN = 0.25
"""Of all designs have methods drawn at random: the uniform baseline knows one of each only, and it comes first."""


class OptunaSampler(IndexedSampler):
    """A sampler of Optuna, made afresh for each draw with a seed of its own.

    Each decision is the index of its choice to Optuna: a whole number where choices are ordered (channels, bits, group
    sizes), one of several where they are not (methods). Limits are one constraint, the sum of the relative misses, set
    on every trial: Optuna adds them up anyway, and takes a trial without a constraint for feasible. Failed trials are
    left out: Optuna learns nothing from them. Baseline trials are left out unless the spec seeds the sampler with them.
    """

    def __init__(self, spec: SearchSpec, space: Space) -> None:
        super().__init__(spec, space)
        self._directions = [_DIRECTIONS[objective.direction] for objective in spec.objectives]
        # Optuna's samplers refuse to infer a decision that has one choice only; there is nothing to infer either.
        self._distributions: dict[str, BaseDistribution] = {
            decision.name: _distribution_of(decision) for decision in space.decisions if len(decision.choices) > 1
        }
        self._free = [column for column, one in enumerate(space.decisions) if one.name in self._distributions]
        self._methods = [decision.name for decision in space.decisions if decision.kind in METHOD_KINDS]
        self._learnt = 0

    def _learn(self, trial: ToldTrial, indices: Indices) -> None:
        if not self._is_learnt(trial):
            return
        values = objective_values(trial, self._spec.objectives)
        if values is not None:
            self._add(self._freeze(self._learnt, indices, values, missed(trial)))
            self._learnt += 1

    def _propose(self, number: int, taken: Set[Indices], running: Sequence[Indices]) -> Indices | None:
        generator = np.random.default_rng([self._spec.sampler.seed, number])
        return self._unused(self._draw(generator, running), taken, generator)

    def _draw(self, generator: np.random.Generator, running: Sequence[Indices]) -> Indices:
        chosen = self._infer(int(generator.integers(2**32)), running)
        # What Optuna leaves open (a random start, a mutation) is drawn here: its own random sampler would start
        # from the same seed as the sampler that called it, and repeat its numbers.
        drawn = random_indices(self._levels, generator)
        for name in self._methods if generator.random() < _METHODS_DRAWN else ():
            chosen.pop(name, None)
        names = (decision.name for decision in self._space.decisions)
        return tuple(int(chosen.get(name, index)) for name, index in zip(names, drawn, strict=True))

    def _freeze(self, number: int, indices: Indices, values: list[float] | None, missed: float) -> FrozenTrial:
        """An Optuna trial: finished if it has `values`, otherwise running."""
        trial = FrozenTrial(
            number=number,
            trial_id=number,
            state=OptunaState.RUNNING if values is None else OptunaState.COMPLETE,
            value=None,
            values=values,
            datetime_start=_NO_TIME,
            datetime_complete=None if values is None else _NO_TIME,
            params=dict(zip(self._distributions, map(indices.__getitem__, self._free), strict=True)),
            distributions=self._distributions,
            user_attrs={},
            system_attrs={},
            intermediate_values={},
        )
        if values is not None:
            trial.set_constraint(_CONSTRAINT, missed)
        return trial

    @abstractmethod
    def _add(self, trial: FrozenTrial) -> None:
        """Remember a finished trial."""

    @abstractmethod
    def _infer(self, seed: int, running: Sequence[Indices]) -> dict[str, Any]:
        """Index by decision name, for those decisions that the sampler has an opinion on. Must change nothing."""


def _distribution_of(decision: Decision) -> BaseDistribution:
    last = len(decision.choices) - 1
    return CategoricalDistribution(range(last + 1)) if decision.kind in METHOD_KINDS else IntDistribution(0, last)


def objective_values(trial: ToldTrial, objectives: Sequence[ObjectiveSpec]) -> list[float] | None:
    """The trial's objectives in the spec's order; None if nothing can be learnt from it.

    An infeasible trial was ended before everything was known: what it lacks counts as the worst there is. It is
    judged by how far it missed its limits, not by these. A stopped one counts by what it was expected to come to.
    """
    values = [trial.values.get(objective.metric, math.nan) for objective in objectives]
    if trial.state is TrialState.INFEASIBLE:
        worst = [math.inf if objective.direction is Direction.MINIMIZE else -math.inf for objective in objectives]
        return [value if math.isfinite(value) else bad for value, bad in zip(values, worst, strict=True)]
    if trial.state in _WITH_VALUES and all(math.isfinite(value) for value in values):
        return values
    return None


def missed(trial: ToldTrial) -> float:
    """By how much the trial misses its limits, all in all; 0 if it meets them."""
    total = sum(amount for amount in trial.violations.values() if amount > 0)
    if trial.state is TrialState.INFEASIBLE and not 0 < total < math.inf:
        return 1.0  # It says that it misses a limit, but not by how much: as bad as twice the limit.
    return total


def view(directions: list[StudyDirection], trials: list[FrozenTrial]) -> Study:
    """A study that shows `trials`, which are neither copied nor changed."""
    return optuna.load_study(study_name=_STUDY_NAME, storage=_ViewStorage(directions, trials))


class StudyIsAViewError(TypeError):
    """Something tried to write to a study that only shows what is recorded elsewhere."""


class _ViewStorage(BaseStorage):
    """One study that can be read. What Optuna's samplers note down on the trial that is asked for is dropped."""

    def __init__(self, directions: list[StudyDirection], trials: list[FrozenTrial]) -> None:
        self._directions = directions
        self._trials = trials

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[OptunaState] | None = None
    ) -> list[FrozenTrial]:
        if states is None:
            return self._trials
        return [trial for trial in self._trials if trial.state in states]

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self._trials[trial_id]

    def get_study_id_from_name(self, study_name: str) -> int:
        return _STUDY_ID

    def get_study_name_from_id(self, study_id: int) -> str:
        return _STUDY_NAME

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._directions

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return {}

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return {}

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        return

    def _refuse(self, *_arguments: Any, **_named: Any) -> NoReturn:
        raise StudyIsAViewError("this study is a view of the search's trials; write there")

    create_new_study = delete_study = get_all_studies = _refuse
    set_study_user_attr = set_study_system_attr = _refuse
    create_new_trial = set_trial_param = set_trial_state_values = _refuse
    set_trial_intermediate_value = set_trial_user_attr = _refuse
