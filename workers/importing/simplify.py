"""What is tidied up once a file is drafted: constants that belong to a layer's own weights, and names."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace

from search_spaces.network import COMPUTE_OPS, Network, Node, Op
from workers.fold import fold_norms
from workers.weights import Weights


def absorb_affines(network: Network, weights: Weights, affines: Set[str]) -> tuple[Network, Weights]:
    """Put scales and shifts that a file has as nodes of their own into the layers, norms or others before them.

    Real batch norms stay: a search ranks channels by raw weights, and recalibrates norms.

    Args:
        affines: names of the batch norms that stand for a constant scale and shift.
    """
    while True:
        nodes = network.by_name()
        followers = _only_followers(network, affines)
        into_layers = {before: norm for before, norm in followers.items() if nodes[before].op in COMPUTE_OPS}
        pairs = [(before, norm) for before, norm in followers.items() if nodes[before].op is Op.BATCH_NORM]
        if into_layers:
            network, weights = fold_norms(network, weights, into_layers)
        elif pairs:
            network, weights = _composed(network, weights, *pairs[0])
        else:
            return network, weights


def renamed(network: Network, weights: Weights, names: Mapping[str, str]) -> tuple[Network, Weights]:
    """The same under other names."""

    def rename(node: Node) -> Node:
        inputs = tuple(names.get(name, name) for name in node.inputs)
        return replace(node, name=names.get(node.name, node.name), inputs=inputs)

    nodes = tuple(rename(node) for node in network.nodes)
    output = names.get(network.output, network.output)
    return replace(network, nodes=nodes, output=output), {_renamed_key(key, names): w for key, w in weights.items()}


def _renamed_key(key: str, names: Mapping[str, str]) -> str:
    node, _, part = key.rpartition(".")
    return f"{names.get(node, node)}.{part}"


def _only_followers(network: Network, affines: Set[str]) -> dict[str, str]:
    """Node to the affine that alone reads it."""
    readers = network.consumers()
    return {
        node.inputs[0]: node.name
        for node in network.nodes
        if node.name in affines and len(readers[node.inputs[0]]) == 1 and node.inputs[0] != network.output
    }


def _composed(network: Network, weights: Weights, first: str, second: str) -> tuple[Network, Weights]:
    """A norm, or a scale and shift, with the scale and shift behind it as one, which keeps the first one's name."""
    scale, shift = weights[f"{second}.weight"], weights[f"{second}.bias"]
    one = {
        f"{first}.weight": weights[f"{first}.weight"] * scale,
        f"{first}.bias": weights[f"{first}.bias"] * scale + shift,
    }
    left = {key: value for key, value in weights.items() if key.rpartition(".")[0] != second} | one
    nodes = tuple(
        replace(node, inputs=tuple(first if name == second else name for name in node.inputs))
        for node in network.nodes
        if node.name != second
    )
    output = first if network.output == second else network.output
    return replace(network, nodes=nodes, output=output), left
