"""Channel pruning as slicing: keeps the best atoms of each channel group and cuts the weights to them.

Knows nothing of how atoms are scored, and does not change the graph: `search_spaces.apply` has done that.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from search_spaces.coupling import Coupling
from search_spaces.design import Design, Kind, decision_name
from search_spaces.network import Network, Node, Op, is_depthwise
from workers.weights import Weights

Kept = Mapping[str, np.ndarray]
"""For every tensor of the base the channels that are kept, ascending."""


def choose_channels(coupling: Coupling, design: Design, scores: np.ndarray) -> Kept:
    """The channels that a design keeps: in each group the atoms of highest score, as many as it says."""
    keep = np.ones(len(scores), dtype=bool)
    for index, group in enumerate(coupling.groups):
        count = design.get(decision_name(Kind.CHANNELS, group.name), group.size)
        atoms = np.flatnonzero(coupling.group_of_atom == index)
        keep[atoms] = False
        keep[_best(atoms, scores, int(count))] = True
    return {tensor: np.flatnonzero(keep[atoms]) for tensor, atoms in coupling.atoms.items()}


def _best(atoms: np.ndarray, scores: np.ndarray, count: int) -> np.ndarray:
    """Ties go to the first channel, so that the choice is the same everywhere."""
    return atoms[np.argsort(-scores[atoms], kind="stable")[:count]]


def slice_weights(network: Network, weights: Weights, kept: Kept) -> Weights:
    """The base's weights cut to the kept channels; `network` is the base's."""
    sliced: Weights = {}
    for node in network.nodes:
        if node.op in (Op.CONV, Op.LINEAR):
            sliced[f"{node.name}.weight"] = _slice_filters(node, weights[f"{node.name}.weight"], kept)
        for field in ("bias",) if node.op in (Op.CONV, Op.LINEAR) else _VECTORS.get(node.op, ()):
            if f"{node.name}.{field}" in weights:
                sliced[f"{node.name}.{field}"] = weights[f"{node.name}.{field}"][kept[node.name]]
    return sliced


_VECTORS = {Op.BATCH_NORM: ("weight", "bias", "running_mean", "running_var")}


def _slice_filters(node: Node, weight: np.ndarray, kept: Kept) -> np.ndarray:
    outputs, inputs = kept[node.name], kept[node.inputs[0]]
    per_group = weight.shape[1]
    if is_depthwise(node, per_group * node.groups):
        return np.ascontiguousarray(weight[outputs])
    block_of_output = outputs // (len(weight) // node.groups)
    columns = (inputs % per_group).reshape(node.groups, -1)  # the same count is kept in every block
    return np.ascontiguousarray(weight[outputs[:, None], columns[block_of_output]])
