"""No importance at all: what the others have to be better than."""

from __future__ import annotations

import numpy as np

from search_spaces.apply import structure_of
from search_spaces.network import Network, network_digest
from workers.importance.base import Evidence, Importance
from workers.weights import Weights


class Chance(Importance):
    """Scores that are drawn, always the same ones for a network."""

    def atom_scores(self, network: Network, weights: Weights, evidence: Evidence) -> np.ndarray:
        generator = np.random.default_rng(int(network_digest(network)[:16], 16))
        return generator.random(len(structure_of(network).coupling.group_of_atom))
