"""Batch norms folded into the layers before them: what runtimes execute and quantisation sees.

Pure numpy over plain data. It must not know torch, ONNX or any device.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from search_spaces.network import Network
from search_spaces.quantisation import foldable_norms, without_norms
from workers.weights import BATCH_NORM_EPSILON, Weights


def fold_batch_norms(network: Network, weights: Mapping[str, np.ndarray]) -> tuple[Network, Weights]:
    """Replace layer + batch norm by the layer alone, with a bias.

    A batch norm stays where it reads no conv or linear, or where its layer has other readers too: there the
    unnormalised values are needed as well.

    Returns:
        The folded network, and weights for exactly its nodes. The folded layer keeps its own name, and
        whoever read the batch norm reads the layer.
    """
    return fold_norms(network, weights, foldable_norms(network))


def fold_norms(
    network: Network, weights: Mapping[str, np.ndarray], folded: Mapping[str, str]
) -> tuple[Network, Weights]:
    """Fold the named batch norms: layer to the norm that alone reads it."""
    renamed = set(folded.values())
    out = {name: array for name, array in weights.items() if name.rpartition(".")[0] not in renamed}
    for layer, norm in folded.items():
        out[f"{layer}.weight"], out[f"{layer}.bias"] = _fold(layer, norm, weights)
    return without_norms(network, folded), out


def batch_norm_affine(norm: str, weights: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift per channel, (C,) each, float32, that the batch norm applies at inference."""
    scale = weights[f"{norm}.weight"] / np.sqrt(weights[f"{norm}.running_var"] + np.float32(BATCH_NORM_EPSILON))
    shift = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale
    return scale.astype(np.float32), shift.astype(np.float32)


def _fold(layer: str, norm: str, weights: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    scale, shift = batch_norm_affine(norm, weights)
    weight = weights[f"{layer}.weight"]
    bias = weights.get(f"{layer}.bias")
    per_output = scale.reshape(-1, *[1] * (weight.ndim - 1))
    return weight * per_output, shift if bias is None else shift + bias * scale
