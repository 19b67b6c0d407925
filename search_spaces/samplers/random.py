"""Designs drawn uniformly from the whole space: the yardstick for every sampler that learns."""

from __future__ import annotations

from collections.abc import Sequence, Set

import numpy as np

from search_spaces.samplers.indexed import IndexedSampler
from search_spaces.samplers.unused import Indices, random_indices, unused_near
from search_spaces.space import Space


class RandomSampler(IndexedSampler):
    """Draws each decision on its own; a draw that is taken already moves to a design beside it."""

    def __init__(self, space: Space, seed: int) -> None:
        super().__init__(space)
        self._seed = seed

    def _propose(self, number: int, taken: Set[Indices], running: Sequence[Indices]) -> Indices:
        generator = np.random.default_rng([self._seed, number])
        return unused_near(random_indices(self._levels, generator), self._levels, taken, generator)
