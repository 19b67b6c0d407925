"""Thousands of small random spaces in little time, from a generator: for properties that must hold of any space."""

from __future__ import annotations

from typing import Any

import numpy as np

from search_spaces.build_space import SpaceError, build_space
from search_spaces.network import InputContract, Network, Node, Op
from search_spaces.space import Space
from search_spaces.spec import SpaceSpec
from tests.random_spaces import any_device


def small_network(generator: np.random.Generator) -> Network:
    """Two to five convolutions, some depthwise, some with a shortcut around them, and a classifier."""
    channels = int(generator.choice([4, 8, 12]))
    nodes = [Node("image", Op.INPUT), Node("stem", Op.CONV, ("image",), channels=channels, bias=True)]
    for number in range(int(generator.integers(1, 5))):
        source, block = nodes[-1].name, f"block{number}"
        match generator.integers(3):
            case 0:
                channels = int(generator.choice([4, 8, 16]))
                nodes.append(Node(f"conv{number}", Op.CONV, (source,), channels=channels, kernel=(1, 1), block=block))
            case 1:
                nodes.append(_depthwise(f"depthwise{number}", source, channels, block))
            case _:
                nodes.append(Node(f"conv{number}", Op.CONV, (source,), channels=channels, block=block))
                nodes.append(Node(f"add{number}", Op.ADD, (f"conv{number}", source)))
    nodes += [Node("pool", Op.GLOBAL_AVERAGE_POOL, (nodes[-1].name,)), Node("flat", Op.FLATTEN, ("pool",))]
    nodes.append(Node("classifier", Op.LINEAR, ("flat",), channels=3, bias=True))
    return Network("small", InputContract((1, 4, 4), (0.5,), (0.5,)), tuple(nodes), "classifier")


def _depthwise(name: str, source: str, channels: int, block: str) -> Node:
    return Node(
        name, Op.CONV, (source,), channels=channels, kernel=(3, 3), padding=(1,) * 4, groups=channels, block=block
    )


def small_space(generator: np.random.Generator) -> Space:
    """A space over such a network, of channels, of bits in one of three ways, and sometimes of groups."""
    spec: dict[str, Any] = {"prune_ratio": {"high": 0.75, "step": 0.25}}
    match generator.integers(3):
        case 0:
            spec["precision"] = {"choices": ["fp32", "w8a8", "w4a4"], "scope": "block"}
        case 1:
            spec["weight_bits"], spec["activation_bits"] = {"choices": [2, 4, 8]}, {"choices": [4, 8]}
    if generator.random() < 0.3:
        spec["group_size"] = {"choices": [1, 2], "scope": str(generator.choice(["layer", "network"]))}
    network = small_network(generator)
    device = any_device(int(generator.choice([1, 2, 4])))
    try:
        return build_space(network, SpaceSpec.model_validate(spec), device)[0]
    except SpaceError:  # groups, and nothing that has any
        spec.pop("group_size")
        return build_space(network, SpaceSpec.model_validate(spec), device)[0]
