"""What samplers that think in choice indices share: bookkeeping of what is taken, and asking one by one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence, Set

from search_spaces.design import Design
from search_spaces.samplers.base import Proposal, Sampler, ToldTrial
from search_spaces.samplers.unused import Indices
from search_spaces.space import Space


class IndexedSampler(Sampler):
    """A sampler on indices. It remembers what was told, so that an implementation says only how it draws.

    Implementations give `_propose`, and `_learn` if they learn.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._levels = tuple(len(decision.choices) for decision in space.decisions)
        self._size = space.size()
        self._told: set[Indices] = set()

    def tell(self, trials: Sequence[ToldTrial]) -> None:
        for trial in trials:
            indices = self._space.indices_of(trial.design)
            self._told.add(indices)
            self._learn(trial, indices)

    def ask(self, count: int, first_number: int, open_designs: Sequence[Design]) -> list[Proposal]:
        running = [self._space.indices_of(design) for design in open_designs]
        taken = self._told.union(running)
        proposals: list[Proposal] = []
        for number in range(first_number, first_number + count):
            if len(taken) >= self._size:
                break
            # Sorted, so that the order in which open designs are listed cannot change what is asked.
            indices = self._propose(number, taken, sorted(running))
            taken.add(indices)
            running.append(indices)
            proposals.append(Proposal(self._space.design_at(indices), {}))
        return proposals

    def _learn(self, trial: ToldTrial, indices: Indices) -> None:
        """Called for each told trial, in order, after it was noted as taken."""
        return

    @abstractmethod
    def _propose(self, number: int, taken: Set[Indices], running: Sequence[Indices]) -> Indices:
        """Indices of the design for trial `number`, not in `taken`; there is one left. Must change nothing."""
