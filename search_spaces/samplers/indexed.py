"""What samplers that think in choice indices share: what is taken, what cannot meet the limits, asking one by one."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence, Set

import numpy as np

from search_spaces.apply import apply
from search_spaces.costs import symbolic_values
from search_spaces.design import Design
from search_spaces.design_keys import same_designs
from search_spaces.objectives import SYMBOLIC_METRICS
from search_spaces.pareto import violations
from search_spaces.samplers.base import Proposal, Sampler, ToldTrial
from search_spaces.samplers.unused import Indices, unused_near
from search_spaces.space import Space
from search_spaces.spec import SearchSpec


class IndexedSampler(Sampler):
    """A sampler on indices. It remembers what was told, so that an implementation says only how it draws.

    Implementations give `_propose`, and `_learn` if they learn.
    """

    draws = 32
    """How many draws are looked at, at most, for one that meets the limits that are known without any work."""

    def __init__(self, spec: SearchSpec, space: Space) -> None:
        self._spec = spec
        self._space = space
        self._foreseeable = tuple(limit for limit in spec.limits if limit.metric in SYMBOLIC_METRICS)
        self._levels = tuple(len(decision.choices) for decision in space.decisions)
        self._size = space.size()
        self._told: set[Indices] = set()

    def tell(self, trials: Sequence[ToldTrial]) -> None:
        for trial in trials:
            indices = self._space.indices_of(trial.design)
            self._told |= same_designs(self._space, indices)
            self._learn(trial, indices)

    def ask(self, count: int, first_number: int, open_designs: Sequence[Design]) -> list[Proposal]:
        running = [self._space.indices_of(design) for design in open_designs]
        taken = self._told.union(*(same_designs(self._space, indices) for indices in running))
        proposals: list[Proposal] = []
        for number in range(first_number, first_number + count):
            if len(taken) >= self._size:
                break
            # Sorted, so that the order in which open designs are listed cannot change what is asked.
            indices = self._propose(number, taken, sorted(running))
            taken |= same_designs(self._space, indices)
            running.append(indices)
            proposals.append(Proposal(self._space.design_at(indices), {}))
        return proposals

    def _learn(self, trial: ToldTrial, indices: Indices) -> None:
        """Called for each told trial, in order, after it was noted as taken."""
        return

    def _choose(self, draw: Callable[[], Indices], taken: Set[Indices], generator: np.random.Generator) -> Indices:
        """The first unused design drawn that meets the limits on size, MACs and the like, known without any work.

        If none of `draws` does, the one that misses them least: the search then learns where the limits are.
        """
        best, least = None, math.inf
        for _ in range(self.draws):
            indices = unused_near(draw(), self._levels, taken, generator)
            miss = self._foreseen_miss(indices)
            if best is None or miss < least:
                best, least = indices, miss
            if miss == 0:
                break
        assert best is not None
        return best

    def _foreseen_miss(self, indices: Indices) -> float:
        if not self._foreseeable:
            return 0.0
        network = apply(self._space.network, self._space.design_at(indices))
        return sum(violations(symbolic_values(network), self._foreseeable).values())

    @abstractmethod
    def _propose(self, number: int, taken: Set[Indices], running: Sequence[Indices]) -> Indices:
        """Indices of the design for trial `number`, not in `taken`; there is one left. Must change nothing."""
