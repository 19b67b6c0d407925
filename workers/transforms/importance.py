"""How much a channel matters, from the magnitude of the weights that read it.

Filters that make a channel say little behind a batch norm, which undoes their scale; what the next layers
make of it says more (AMC's choice; 1 to 4 points of accuracy after reconstruction at pruning ratios of .3
to .7). Raw weights are ranked, before batch norms are folded into them: folded ones lose 6 to 12 points.
Which channels live and die together is not decided here but in `search_spaces.coupling`.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np

from search_spaces.apply import structure_of
from search_spaces.network import Network, Node
from workers.weights import Weights


class Norm(StrEnum):
    """Of the weights that read one channel."""

    L1 = "l1"
    L2 = "l2"


def atom_scores(network: Network, weights: Weights, norm: Norm) -> np.ndarray:
    """Importance of every atom, comparable within one channel group.

    An atom's score is the sum of the norms of the weights that read it, over all layers that mix channels;
    depthwise layers hand it on. Each reader's norms are divided by their mean first, so that in a residual
    group no layer outvotes the others by its scale.

    Returns:
        float64 of shape (atoms,).
    """
    structure = structure_of(network)
    scores = np.zeros(len(structure.coupling.group_of_atom))
    for name, node in structure.layers.items():
        if name not in structure.depthwise:
            norms = _reading_norms(node, weights[f"{name}.weight"], norm)
            np.add.at(scores, structure.coupling.atoms[node.inputs[0]], norms / max(norms.mean(), _TINY))
    return scores


_TINY = float(np.finfo(float).tiny)


def _reading_norms(node: Node, weight: np.ndarray, norm: Norm) -> np.ndarray:
    """Of the weights that read each input channel: (input channels,)."""
    outputs = len(weight) // node.groups
    by_input = weight.reshape(node.groups, outputs, weight.shape[1], -1).swapaxes(1, 2).astype(np.float64)
    flat = by_input.reshape(node.groups * weight.shape[1], -1)
    return np.asarray(np.linalg.norm(flat, ord=1 if norm is Norm.L1 else 2, axis=1))
