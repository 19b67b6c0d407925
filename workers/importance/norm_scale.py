"""Importance from the scale of batch norms (network slimming, Liu et al., ICCV 2017)."""

from __future__ import annotations

import numpy as np

from search_spaces.apply import structure_of
from search_spaces.network import Network, Op
from workers.importance.base import Evidence, Importance
from workers.importance.filters import filter_norms
from workers.weights import Weights


class BatchNormScale(Importance):
    """|gamma| of the batch norms right behind the layers that make a channel, added up.

    Where no layer of a channel group has one, the norm of the filters ranks the group's channels instead.
    """

    def atom_scores(self, network: Network, weights: Weights, evidence: Evidence) -> np.ndarray:
        structure = structure_of(network)
        atoms, group_of_atom = structure.coupling.atoms, structure.coupling.group_of_atom
        makers = structure.layers.keys() - structure.depthwise
        scores = np.zeros(len(group_of_atom))
        is_scaled = np.zeros(len(structure.coupling.groups), dtype=bool)
        for node in network.nodes:
            if node.op is Op.BATCH_NORM and node.inputs[0] in makers:
                np.add.at(scores, atoms[node.name], np.abs(weights[f"{node.name}.weight"].astype(np.float64)))
                is_scaled[group_of_atom[atoms[node.name]]] = True
        return np.where(is_scaled[group_of_atom], scores, filter_norms(network, weights))
