"""Puts back the batch norms that an exporter has folded away, so that a network can be trained on as it was trained.

Fine-tuning without them diverges at rates that the same network takes with them, and pruned networks are mended by
their statistics. Folding has lost those, and what is put back says nothing until it has seen images: then its
statistics are those of the network's own activations, and the network still computes what it did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from search_spaces.network import Network, Node, Op, infer_shapes, unused_name
from workers.torch_network import build_module
from workers.weights import BATCH_NORM_EPSILON, Weights

_BATCH = 8
_QUIET = 1e-5
"""Of a layer's mean variance: channels that vary less are taken to vary so much."""


def add_norms(network: Network, weights: Weights) -> tuple[Network, Weights, tuple[str, ...]]:
    """Put a batch norm behind each conv that has none and makes a map of more than one cell.

    Gates and heads, which work on averages, had none to begin with.

    Returns:
        the network, its weights, and the names of the norms, which change nothing as yet.
    """
    norms = _missing_norms(network)
    behind = {norm.inputs[0]: norm.name for norm in norms}
    by_conv = {norm.inputs[0]: norm for norm in norms}
    nodes: list[Node] = []
    for node in network.nodes:
        inputs = tuple(behind.get(name, name) for name in node.inputs)
        nodes.append(replace(node, inputs=inputs, bias=node.bias and node.name not in behind))
        if node.name in by_conv:
            nodes.append(by_conv[node.name])
    out = {name: array for name, array in weights.items() if name not in {f"{conv}.bias" for conv in behind}}
    for conv, norm in behind.items():
        channels = len(weights[f"{conv}.weight"])
        bias = weights.get(f"{conv}.bias", np.zeros(channels, np.float32))
        out |= _affine(norm, np.zeros(channels), np.ones(channels), bias)
    return replace(network, nodes=tuple(nodes)), out, tuple(behind.values())


def settle_norms(network: Network, weights: Weights, norms: Sequence[str], images: np.ndarray) -> Weights:
    """Weights that compute the same, with norms whose statistics are those of these images.

    Filters are scaled so that their outputs vary by about 1, as far as the norms undo it.

    Args:
        network: with the norms that `add_norms` has put in.
        weights: as they come from there.
        norms: their names.
        images: float32 (n, C, H, W), normalised.
    """
    convs = {norm: network.by_name()[norm].inputs[0] for norm in norms}
    settled = dict(weights)
    for norm, (mean, variance) in _statistics(network, weights, convs, images).items():
        scale = np.sqrt(variance + _QUIET * variance.mean() + np.finfo(np.float32).tiny)
        filters = weights[f"{convs[norm]}.weight"]
        settled[f"{convs[norm]}.weight"] = (filters / scale.reshape(-1, 1, 1, 1)).astype(np.float32)
        slope = weights[f"{norm}.weight"] / np.sqrt(weights[f"{norm}.running_var"] + BATCH_NORM_EPSILON)
        shift = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * slope
        settled |= _affine(norm, mean / scale, variance / scale**2, shift + mean * slope, scale * slope)
    return settled


def _missing_norms(network: Network) -> list[Node]:
    shapes, readers = infer_shapes(network), network.consumers()
    taken = set(network.by_name())
    norms = []
    for node in network.nodes:
        is_map = node.op is Op.CONV and max(shapes[node.name][1:]) > 1
        if is_map and node.name != network.output and all(one.op is not Op.BATCH_NORM for one in readers[node.name]):
            name = unused_name(f"{node.name}.norm", taken)
            taken.add(name)
            norms.append(Node(name, Op.BATCH_NORM, (node.name,), block=node.block))
    return norms


def _affine(
    norm: str, mean: np.ndarray, variance: np.ndarray, at_mean: np.ndarray, slope: np.ndarray | float = 1.0
) -> Weights:
    """A norm that maps x to (x - mean) * slope + at_mean."""
    parts = {
        "weight": slope * np.sqrt(variance + BATCH_NORM_EPSILON),
        "bias": at_mean,
        "running_mean": mean,
        "running_var": variance,
    }
    return {f"{norm}.{part}": np.asarray(value, np.float32) for part, value in parts.items()}


def _statistics(
    network: Network, weights: Weights, convs: dict[str, str], images: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and variance (channels,) of what each norm reads, over all images and positions, float64."""
    module = build_module(network, weights).eval()
    shapes = infer_shapes(network)
    sums = {norm: torch.zeros(2, shapes[norm][0], dtype=torch.float64) for norm in convs}
    names = list(dict.fromkeys(convs.values()))
    with torch.inference_mode():
        for start in range(0, len(images), _BATCH):
            batch = torch.from_numpy(images[start : start + _BATCH]).contiguous(memory_format=torch.channels_last)
            tensors = module.observe(batch, names)
            for norm, conv in convs.items():
                tensor = tensors[conv]
                sums[norm][0] += tensor.sum(dim=(0, 2, 3), dtype=torch.float64)
                sums[norm][1] += tensor.square().sum(dim=(0, 2, 3), dtype=torch.float64)
    found = {}
    for norm, (total, squares) in sums.items():
        count = len(images) * int(np.prod(shapes[norm][1:]))
        mean = (total / count).numpy()
        found[norm] = (mean, np.maximum((squares / count).numpy() - mean**2, 0.0))
    return found
