"""Other group sizes for trained convolutions: what a filter reads of the old groups it keeps, the rest begins at zero.

Where every old group lies within a new one, nothing that is computed changes: filters become block diagonal (E2GC's
exact initialisation, from one channel per group to G). Where a group is cut, an output loses what it read outside of
its new group, in the channels' own order. Reconstruction or training then makes up for it, and fills the zeros.
"""

from __future__ import annotations

import numpy as np

from search_spaces.network import Network, Op, infer_shapes
from workers.weights import Weights


def regroup(network: Network, weights: Weights) -> Weights:
    """Filters as wide as `network`, the applied one, reads per group; the others stay as they are."""
    regrouped = dict(weights)
    shapes = infer_shapes(network)
    for node in network.nodes:
        if node.op is not Op.CONV:
            continue
        weight, inputs = weights[f"{node.name}.weight"], shapes[node.inputs[0]][0]
        if weight.shape[1] != inputs // node.groups:
            regrouped[f"{node.name}.weight"] = _moved(weight, inputs, node.groups)
    return regrouped


def is_exact(old_groups: int, new_groups: int) -> bool:
    """Whether a conv computes the same in the new groups: each old one lies within one of them."""
    return old_groups % new_groups == 0


def _moved(weight: np.ndarray, inputs: int, groups: int) -> np.ndarray:
    """(outputs, old G, height, width) -> (outputs, inputs / groups, height, width), by the inputs that both read."""
    old_size, size = weight.shape[1], inputs // groups
    outputs = np.arange(len(weight))
    old_first = outputs // (len(weight) * old_size // inputs) * old_size
    first = outputs // (len(weight) // groups) * size
    place = (first - old_first)[:, None] + np.arange(size)  # of each input of the new group in the old one
    is_read = (place >= 0) & (place < old_size)
    moved = weight[outputs[:, None], np.where(is_read, place, 0)]
    moved[~is_read] = 0
    return moved
