"""Channel pruning as slicing: keeps the best atoms of each channel group and cuts the weights to them.

Knows nothing of how atoms are scored, and does not change the graph: `search_spaces.apply` has done that.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from search_spaces.apply import atoms_kept, structure_of
from search_spaces.coupling import keep_atoms, kept_positions
from search_spaces.design import Design
from search_spaces.network import COMPUTE_OPS, Network, Node, is_depthwise
from workers.weights import Weights

_PARTS = ("weight", "bias", "running_mean", "running_var")

Kept = Mapping[str, np.ndarray]
"""For every tensor of the base the channels that are kept, ascending."""


def choose_channels(network: Network, design: Design, scores: np.ndarray) -> Kept:
    """The channels of the base `network` that a design keeps: in each group the atoms of highest score."""
    coupling = structure_of(network).coupling
    keep = keep_atoms(coupling, atoms_kept(network, design), scores)
    return {tensor: kept_positions(coupling, keep, tensor) for tensor in coupling.atoms}


def slice_weights(network: Network, weights: Weights, kept: Kept) -> Weights:
    """The base's weights cut to the kept channels; `network` is the base's."""
    sliced: Weights = {}
    for node in network.nodes:
        for part in _PARTS:
            array = weights.get(f"{node.name}.{part}")
            if array is None:
                continue
            is_filter = part == "weight" and node.op in COMPUTE_OPS
            sliced[f"{node.name}.{part}"] = _slice_filters(node, array, kept) if is_filter else array[kept[node.name]]
    return sliced


def _slice_filters(node: Node, weight: np.ndarray, kept: Kept) -> np.ndarray:
    outputs, inputs = kept[node.name], kept[node.inputs[0]]
    per_group = weight.shape[1]
    if is_depthwise(node, per_group * node.groups):
        return np.ascontiguousarray(weight[outputs])
    block_of_output = outputs // (len(weight) // node.groups)
    columns = (inputs % per_group).reshape(node.groups, -1)  # the same count is kept in every block
    return np.ascontiguousarray(weight[outputs[:, None], columns[block_of_output]])
