"""Importance from a channel's own filters: the weights that make it, as the pruning literature scores them.

An atom's filters are those of all layers that make its channels: in a residual group of every conv that adds to the
sum, since all of them go with it. Depthwise filters are left out: their channel goes with the one that feeds it,
and inherits its score (as in the code of Lubana and Dick, arXiv 2009.11839). To add theirs would count one removal
twice: theta.g of both is the channel's values times their gradients, but for the norm's shift between them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from search_spaces.apply import structure_of
from search_spaces.network import Network
from workers.importance.base import Evidence, Importance
from workers.weights import Weights


class FilterL2(Importance):
    """The L2 norm of a channel's own filters; where several make it, the sum.

    `l2` is another: of the weights that read the channel. Behind a batch norm a filter's scale says little.
    """

    def atom_scores(self, network: Network, weights: Weights, evidence: Evidence) -> np.ndarray:
        return filter_norms(network, weights)


def filter_norms(network: Network, weights: Weights) -> np.ndarray:
    """The L2 norms of each atom's filters, added up: float64 (atoms,)."""
    layers = structure_of(network).layers
    flat = {name: own_weights(weights, name).reshape(len(weights[f"{name}.weight"]), -1) for name in layers}
    return sum_over_filters(network, {name: np.linalg.norm(rows, axis=1) for name, rows in flat.items()})


def own_weights(weights: Weights, layer: str) -> np.ndarray:
    """A layer's weights in float64."""
    return weights[f"{layer}.weight"].astype(np.float64)


def sum_over_filters(network: Network, values: Mapping[str, np.ndarray]) -> np.ndarray:
    """Sums of what is told of each weight, over all filters of each atom.

    Args:
        values: by layer, in the shape of its weights, or one of each filter.

    Returns:
        float64 of shape (atoms,).
    """
    structure = structure_of(network)
    sums = np.zeros(len(structure.coupling.group_of_atom))
    for name in structure.layers:
        if name not in structure.depthwise:
            by_filter = values[name].reshape(len(values[name]), -1).sum(axis=1, dtype=np.float64)
            np.add.at(sums, structure.coupling.atoms[name], by_filter)
    return sums
