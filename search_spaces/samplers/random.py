"""Designs drawn uniformly from the whole space: the yardstick for every sampler that learns."""

from __future__ import annotations

from collections.abc import Sequence, Set

import numpy as np

from search_spaces.samplers.indexed import IndexedSampler
from search_spaces.samplers.unused import random_indices
from search_spaces.space import Indices


class RandomSampler(IndexedSampler):
    """Draws each decision on its own; a draw that is taken already moves to a design beside it."""

    def _propose(self, number: int, taken: Set[Indices], running: Sequence[Indices]) -> Indices | None:
        generator = np.random.default_rng([self._spec.sampler.seed, number])
        return self._unused(random_indices(self._levels, generator), taken, generator)
