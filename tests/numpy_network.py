"""A third interpreter of networks, slow and obvious, in float64 numpy: what the others are held against."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from search_spaces.network import COMPUTE_OPS, Network, Node, Op, infer_shapes

Arrays = dict[str, np.ndarray]
EPSILON = 1e-5
"""Of batch norms, as in torch."""


def random_weights(network: Network, seed: int) -> Arrays:
    """Weights by the names that the workers use, float64, scaled so that values stay near 1."""
    generator, shapes = np.random.default_rng(seed), infer_shapes(network)
    weights: Arrays = {}
    for node in network.nodes:
        name = node.name
        if node.op is Op.BATCH_NORM:
            channels = shapes[name][0]
            weights[f"{name}.weight"] = generator.uniform(0.5, 1.5, channels)
            weights[f"{name}.bias"] = generator.normal(0, 0.3, channels)
            weights[f"{name}.running_mean"] = generator.normal(0, 0.3, channels)
            weights[f"{name}.running_var"] = generator.uniform(0.5, 1.5, channels)
        if node.op in COMPUTE_OPS:
            inputs = shapes[node.inputs[0]][0] // node.groups
            shape = (node.channels, inputs, *node.kernel) if node.op is Op.CONV else (node.channels, inputs)
            weights[f"{name}.weight"] = generator.normal(0, np.prod(shape[1:]) ** -0.5, shape)
            if node.bias:
                weights[f"{name}.bias"] = generator.normal(0, 0.3, node.channels)
    return weights


def run(network: Network, weights: Arrays, x: np.ndarray, masks: Mapping[str, np.ndarray] | None = None) -> Arrays:
    """Every tensor of the network for a batch x of shape (N, C, H, W).

    With `masks` (tensor name to a bool for each channel) the channels that are False are zeroed as soon as they
    are made.
    """
    tensors: Arrays = {}
    for node in network.nodes:
        inputs = [tensors[name] for name in node.inputs] or [x]
        y = _compute(node, inputs, weights)
        if masks is not None:
            y = y * masks[node.name].reshape(1, -1, *(1,) * (y.ndim - 2))
        tensors[node.name] = y
    return tensors


def _compute(node: Node, inputs: list[np.ndarray], weights: Arrays) -> np.ndarray:
    match node.op:
        case Op.CONV:
            return _conv(node, inputs[0], weights)
        case Op.LINEAR:
            return inputs[0] @ weights[f"{node.name}.weight"].T + weights.get(f"{node.name}.bias", 0.0)
        case Op.BATCH_NORM:
            return _batch_norm(node, inputs[0], weights)
        case Op.SHUFFLE:
            return _shuffle(node, inputs[0])
        case Op.SLICE:
            assert node.channels is not None
            return inputs[0][:, node.start : node.start + node.channels]
        case Op.PAD:
            return _padded(node, inputs[0], 0.0)
        case Op.MAX_POOL:
            return _windows(node, inputs[0], -np.inf).max(axis=(-2, -1))
        case Op.AVERAGE_POOL:
            return _average_pool(node, inputs[0])
        case _:
            return _WITHOUT_ATTRIBUTES[node.op](*inputs)


_WITHOUT_ATTRIBUTES: dict[Op, Callable[..., np.ndarray]] = {
    Op.INPUT: lambda x: x,
    Op.RELU: lambda x: np.maximum(x, 0),
    Op.RELU6: lambda x: np.clip(x, 0, 6),
    Op.SIGMOID: lambda x: 1 / (1 + np.exp(-x)),
    Op.HARD_SIGMOID: lambda x: np.clip(x + 3, 0, 6) / 6,
    Op.SWISH: lambda x: x / (1 + np.exp(-x)),
    Op.HARD_SWISH: lambda x: x * np.clip(x + 3, 0, 6) / 6,
    Op.ADD: lambda x, *others: sum(others, x),
    Op.MULTIPLY: lambda x, gate: x * gate,
    Op.CONCAT: lambda *parts: np.concatenate(parts, axis=1),
    Op.GLOBAL_AVERAGE_POOL: lambda x: x.mean(axis=(2, 3), keepdims=True),
    Op.FLATTEN: lambda x: x.reshape(len(x), -1),
}


def _shuffle(node: Node, x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), node.groups, -1, *x.shape[2:]).swapaxes(1, 2).reshape(x.shape)


def _average_pool(node: Node, x: np.ndarray) -> np.ndarray:
    counts = _windows(node, np.ones_like(x), 0.0).sum(axis=(-2, -1))
    return _windows(node, x, 0.0).sum(axis=(-2, -1)) / counts


def _padded(node: Node, x: np.ndarray, fill: float) -> np.ndarray:
    top, left, bottom, right = node.padding
    return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)


def _windows(node: Node, x: np.ndarray, fill: float) -> np.ndarray:
    """(N, C, H', W', kh, kw)."""
    reach = [(taps - 1) * step + 1 for taps, step in zip(node.kernel, node.dilation, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(_padded(node, x, fill), reach, axis=(2, 3))
    return windows[:, :, :: node.stride[0], :: node.stride[1], :: node.dilation[0], :: node.dilation[1]]


def _conv(node: Node, x: np.ndarray, weights: Arrays) -> np.ndarray:
    weight = weights[f"{node.name}.weight"]
    outputs = weight.shape[0] // node.groups
    parts = [
        np.einsum("nchwij,ocij->nohw", windows, weight[group * outputs : (group + 1) * outputs])
        for group, windows in enumerate(np.split(_windows(node, x, 0.0), node.groups, axis=1))
    ]
    bias = weights.get(f"{node.name}.bias", np.zeros(weight.shape[0]))
    return np.concatenate(parts, axis=1) + bias[:, None, None]


def _batch_norm(node: Node, x: np.ndarray, weights: Arrays) -> np.ndarray:
    mean, variance, weight, bias = (
        weights[f"{node.name}.{part}"].reshape(1, -1, *(1,) * (x.ndim - 2))
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / np.sqrt(variance + EPSILON) * weight + bias
