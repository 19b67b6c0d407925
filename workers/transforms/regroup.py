"""Larger groups for depthwise layers: from one channel per group to G, without changing what is computed.

The new filters are block diagonal: zero, but for the old filter at the channel's own place (E2GC's
exact initialisation). Reconstruction or training then fills the zeros.
"""

from __future__ import annotations

import numpy as np

from search_spaces.network import Network, Op, infer_shapes
from workers.weights import Weights


def regroup(network: Network, weights: Weights) -> Weights:
    """Widen filters to what `network`, the applied one, reads per group; the others stay as they are."""
    widened = dict(weights)
    shapes = infer_shapes(network)
    for node in network.nodes:
        if node.op is not Op.CONV:
            continue
        weight = weights[f"{node.name}.weight"]
        group_size = shapes[node.inputs[0]][0] // node.groups
        if weight.shape[1] < group_size:
            widened[f"{node.name}.weight"] = _block_diagonal(weight, node.groups, group_size)
    return widened


def _block_diagonal(weight: np.ndarray, groups: int, group_size: int) -> np.ndarray:
    """(outputs, 1, height, width) -> (outputs, G, height, width). Output o reads input o // multiplier."""
    multiplier = len(weight) // (groups * group_size)
    own = (np.arange(len(weight)) // multiplier) % group_size
    wide = np.zeros((len(weight), group_size, *weight.shape[2:]), dtype=weight.dtype)
    wide[np.arange(len(weight)), own] = weight[:, 0]
    return wide
