"""Evolution with repair, its children chosen by a predictor: as in APQ (Wang et al., CVPR 2020), for a whole front.

APQ breeds by mutation and by crossover from the best so far, drops what is over the budget, and has a predictor of
accuracy choose. Here what is over the budget is repaired, costs that follow from a design are computed instead of
predicted, and what counts is by how much a child is expected to improve the front. (In APQ's published code the
children of crossover are scored and then dropped; here they live.)
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from itertools import product

import numpy as np
from numpy.typing import NDArray

from search_spaces.samplers.acquisition import non_dominated
from search_spaces.samplers.history import first_unused
from search_spaces.samplers.indexed import IndexedSampler
from search_spaces.samplers.unused import random_indices
from search_spaces.space import Indices, Space
from search_spaces.spec import SearchSpec

Rows = NDArray[np.int64]

SMALL_SPACE = 4096
"""Designs, up to which all of them are looked at."""
CHILDREN, STRANGERS = 256, 64
CLIMBERS, CLIMBS = 4, 3
"""The best children are moved on, one decision at a time, while that is expected to improve them."""
PARENTS = 32
BY_MUTATION = 0.5


class EvolutionSampler(IndexedSampler):
    """Breeds from the best trials so far and proposes the child that is expected to improve the front most.

    Until enough is known, and while the predictor ranks poorly, a child is taken as it comes.
    """

    predicts = True

    def __init__(self, spec: SearchSpec, space: Space) -> None:
        super().__init__(spec, space)
        self._everything: Rows | None = None

    def _propose(self, number: int, taken: Set[Indices], running: Sequence[Indices]) -> Indices | None:
        generator = np.random.default_rng([self._spec.sampler.seed, number])
        assert self._history is not None, "it predicts"
        if len(self._history.rows) < 2:
            return self._unused(random_indices(self._levels, generator), taken, generator)
        found = self._best(generator, taken, running) if self._history.can_rank else None
        if found is None:
            child = tuple(map(int, self._children(generator, self._parents(), 1)[0]))
            return self._unused(child, taken, generator)
        return found

    def _best(self, generator: np.random.Generator, taken: Set[Indices], running: Sequence[Indices]) -> Indices | None:
        """The candidate that is expected to improve the front most."""
        assert self._history is not None, "it predicts"
        judge = self._history.worth(running, generator)
        rows = self._candidates(generator)
        if not len(rows):
            return None
        worth = judge(rows)
        for _ in range(CLIMBS if self._everything is None else 0):
            best = rows[np.argsort(-worth, kind="stable")[:CLIMBERS]]
            beside = self._kept(self._beside(best))
            if not len(beside):
                break
            rows, worth = np.concatenate([rows, beside]), np.concatenate([worth, judge(beside)])
        return first_unused(rows, worth, taken.__contains__)

    def _candidates(self, generator: np.random.Generator) -> Rows:
        if self._size <= SMALL_SPACE:
            if self._everything is None:
                self._everything = self._kept(np.array(list(product(*map(range, self._levels))), dtype=np.int64))
            return self._everything
        strangers = generator.integers(self._levels, size=(STRANGERS, len(self._levels)))
        parents = self._parents()
        bred = np.concatenate(
            [self._children(generator, parents, CHILDREN), self._beside(parents[:CLIMBERS]), strangers]
        )
        return self._kept(bred)

    def _kept(self, rows: Rows) -> Rows:
        return rows[self._foreseen.keep(rows)]

    def _children(self, generator: np.random.Generator, parents: Rows, count: int) -> Rows:
        """Half of them by mutation of one parent, half by crossover of two and a lighter mutation."""
        mothers, fathers = (parents[generator.integers(len(parents), size=count)] for _ in range(2))
        is_crossed = generator.random(count) >= BY_MUTATION
        from_father = (generator.random(mothers.shape) < 0.5) & is_crossed[:, None]
        children = np.where(from_father, fathers, mothers)
        rate = np.where(is_crossed, 1.0, 2.0)[:, None] / max(len(self._levels), 1)
        is_mutated = generator.random(mothers.shape) < rate
        steps = generator.choice([-2, -1, 1, 2], p=[0.15, 0.35, 0.35, 0.15], size=mothers.shape)
        moved = np.clip(children + steps, 0, np.array(self._levels) - 1)
        return np.where(is_mutated, moved, children)

    def _parents(self) -> Rows:
        """Members of the front, then of what is the front without them, up to PARENTS."""
        assert self._history is not None, "it predicts"
        rows, points = self._history.rows, self._history.points
        left = np.arange(len(rows))
        parents: list[Indices] = []
        while len(left) and len(parents) < PARENTS:
            kept = non_dominated(points[left])
            parents += [rows[place] for place in left[kept]]
            left = left[~kept]
        return np.array(parents, dtype=np.int64)

    def _beside(self, rows: Rows) -> Rows:
        """All designs that differ from one of these in one decision, by one step."""
        columns = np.repeat(np.arange(len(self._levels)), 2)  # a step down and a step up of each
        steps = np.tile([-1, 1], len(self._levels))[:, None]
        beside = np.repeat(rows[None], len(columns), axis=0)
        beside[np.arange(len(columns)), :, columns] += steps
        choices = beside[np.arange(len(columns)), :, columns]
        return beside[(choices >= 0) & (choices < np.array(self._levels, dtype=np.int64)[columns, None])]
