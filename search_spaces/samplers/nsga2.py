"""NSGA-II (Deb et al. 2002), by Optuna, with generations that are counted in the order of finishing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna.samplers import NSGAIISampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from search_spaces.samplers.optuna_view import OptunaSampler, view
from search_spaces.space import Indices, Space
from search_spaces.spec import SearchSpec

MIN_POPULATION, MAX_POPULATION = 8, 50
"""Of the default: less breeds siblings, more makes generations that learn too late."""


class Nsga2Sampler(OptunaSampler):
    """Breeds from the best trials so far: tournament, uniform crossover, mutation of one decision on average.

    As soon as a population's worth of trials has finished, the best of them and of their parents become the parents
    of what is asked next; baseline trials are the first members. So a trial belongs to the generation in which it
    finishes. In Optuna it is the one in which it is asked, and with several slots the trials that finish after their
    generation was closed are lost as parents. Until the first population is full, designs are random.
    """

    def __init__(self, spec: SearchSpec, space: Space) -> None:
        super().__init__(spec, space)
        self._population = spec.sampler.population or default_population(spec.budget.trials)
        self._parents: list[FrozenTrial] = []
        self._members: list[FrozenTrial] = []

    def _add(self, trial: FrozenTrial) -> None:
        self._members.append(trial)
        if len(self._members) == self._population:
            breeder = _Breeder(self._population, 0, self._parents, self._members)
            self._parents = breeder.select_parent(view(self._directions, []), 1)
            self._members = []

    def _infer(self, seed: int, running: Sequence[Indices]) -> dict[str, Any]:
        breeder = _Breeder(self._population, seed, self._parents, self._members)
        asked = self._freeze(self._learnt, (0,) * len(self._levels), None, 0.0)
        return breeder.sample_relative(view(self._directions, []), asked, self._distributions)


def default_population(budget_trials: int) -> int:
    """Eight generations in the budget; under a limit that few designs meet, four find half as many that do."""
    return min(max(budget_trials // 8, MIN_POPULATION), MAX_POPULATION)


class _Breeder(NSGAIISampler):
    """Optuna's sampler, told who the parents are instead of looking for them in attributes of a study's trials."""

    def __init__(self, population: int, seed: int, parents: list[FrozenTrial], members: list[FrozenTrial]) -> None:
        super().__init__(population_size=population, seed=seed)
        self._parents = parents
        self._members = members

    def get_trial_generation(self, study: Study, trial: FrozenTrial) -> int:
        return 1 if self._parents else 0

    def get_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        return self._members

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        return self._parents
