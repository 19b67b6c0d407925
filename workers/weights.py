"""A network's weights as named numpy arrays. Knows nothing of torch and of files.

Names are `<node>.weight` (O, I/g, kh, kw) of a conv or (O, I) of a linear, `<node>.bias` (O), and
`<node>.weight`, `.bias`, `.running_mean`, `.running_var` (C) of a batch norm. All are float32.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from search_spaces.network import Network, Node, Op, Shape, infer_shapes

Weights = dict[str, np.ndarray]

BATCH_NORM_EPSILON = 1e-5
"""Added to the variance by every batch norm: the same in torch, in folding and in ONNX."""


class WeightsError(ValueError):
    """Weights do not fit their network, or their file is damaged."""


def weight_shapes(network: Network) -> dict[str, Shape]:
    """Name and shape of every array that the network needs, in the order of its nodes."""
    tensors = infer_shapes(network)
    shapes: dict[str, Shape] = {}
    for node in network.nodes:
        if node.op in (Op.CONV, Op.LINEAR):
            shapes[f"{node.name}.weight"] = _kernel_shape(node, tensors[node.inputs[0]])
            if node.bias:
                shapes[f"{node.name}.bias"] = tensors[node.name][:1]
        elif node.op is Op.BATCH_NORM:
            for part in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{node.name}.{part}"] = tensors[node.name][:1]
    return shapes


def _kernel_shape(node: Node, input_shape: Shape) -> Shape:
    assert node.channels is not None, "shapes have been inferred, so the node has channels"
    if node.op is Op.LINEAR:
        return (node.channels, input_shape[0])
    return (node.channels, input_shape[0] // node.groups, *node.kernel)


def check_weights(network: Network, weights: Mapping[str, np.ndarray]) -> None:
    """Check that `weights` are exactly those of `network`.

    Raises:
        WeightsError: an array is missing, superfluous, or has another shape or type.
    """
    expected = weight_shapes(network)
    if expected.keys() != weights.keys():
        raise WeightsError(f"missing or superfluous arrays: {sorted(expected.keys() ^ weights.keys())[:5]}")
    for name, shape in expected.items():
        if weights[name].shape != shape or weights[name].dtype != np.float32:
            found = f"{weights[name].dtype} {weights[name].shape}"
            raise WeightsError(f"{name} must be float32 {shape}, not {found}")


def init_weights(network: Network, seed: int) -> Weights:
    """He-normal convs (variance 2 / fan-in; He et al., 2015), linears of variance 1 / fan-in, neutral batch norms."""
    generator = np.random.default_rng(seed)
    ops = {node.name: node.op for node in network.nodes}
    weights: Weights = {}
    for name, shape in weight_shapes(network).items():
        node_name, part = name.rsplit(".", 1)
        if part == "weight" and ops[node_name] is not Op.BATCH_NORM:
            gain = 2.0 if ops[node_name] is Op.CONV else 1.0
            deviation = np.sqrt(gain / np.prod(shape[1:]))
            weights[name] = (generator.standard_normal(shape) * deviation).astype(np.float32)
        else:
            weights[name] = np.full(shape, float(part in ("weight", "running_var")), dtype=np.float32)
    return weights
