"""Blocks of networks that come without them: as a person would draw them, and computable on their own."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings

from search_spaces.blocks import with_blocks
from search_spaces.catalog import FAMILIES, build_network
from search_spaces.network import COMPUTE_OPS, InputContract, Network, Node, Op
from search_spaces.spec import Family, NetworkSpec
from tests.random_networks import networks

LIKE_THE_CATALOG = [
    Family.EFFICIENTNET_LITE0,
    Family.MOBILENET_V1,
    Family.MOBILENET_V2,
    Family.RESNET_18,
    Family.RESNET_50,
    Family.RESNEXT_50,
]
"""Families whose blocks all end where everything passes through one tensor."""


def without_blocks(network: Network) -> Network:
    return network.with_nodes({node.name: replace(node, block="") for node in network.nodes})


def layers_by_block(network: Network) -> list[tuple[str, ...]]:
    blocks: dict[str, list[str]] = {}
    for node in network.compute_nodes():
        blocks.setdefault(node.block, []).append(node.name)
    return [tuple(layers) for layers in blocks.values()]


def family(name: Family) -> Network:
    shape = (3, 299, 299) if name is Family.INCEPTION_V3 else (3, 224, 224)
    return build_network(NetworkSpec(family=name, input=shape), 10, (0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("name", LIKE_THE_CATALOG)
def test_the_blocks_of_the_catalog_are_found_again(name: Family) -> None:
    network = family(name)
    assert layers_by_block(with_blocks(without_blocks(network))) == layers_by_block(network)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_layer_is_in_one_block_and_blocks_follow_each_other(name: Family) -> None:
    check_blocks(with_blocks(without_blocks(family(name))))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(networks())
def test_random_networks_are_divided_whole(network: Network) -> None:
    check_blocks(with_blocks(without_blocks(network)))


def check_blocks(network: Network) -> None:
    blocks = layers_by_block(network)
    assert sum(blocks, ()) == tuple(node.name for node in network.compute_nodes())
    assert all(node.block for node in network.compute_nodes())
    for layers in blocks[1:-1]:
        assert len(layers) > 1 or is_averaged(network, layers[0]), f"{layers} cannot be told from its neighbours"


def is_averaged(network: Network, layer: str) -> bool:
    """Whether an average over the map comes before the next layer."""
    names = [node.name for node in network.nodes]
    for node in network.nodes[names.index(layer) + 1 :]:
        if node.op in COMPUTE_OPS:
            return False
        if node.op is Op.GLOBAL_AVERAGE_POOL:
            return True
    return False


def test_blocks_are_named_after_what_their_layers_share() -> None:
    nodes = (
        Node("image", Op.INPUT),
        Node("stem", Op.CONV, ("image",), channels=4),
        Node("stage.0.first", Op.CONV, ("stem",), channels=4),
        Node("stage.0.second", Op.CONV, ("stage.0.first",), channels=4),
        Node("stage.1.first", Op.CONV, ("stage.0.second",), channels=4),
        Node("other", Op.CONV, ("stage.1.first",), channels=4),
        Node("flat", Op.FLATTEN, ("other",)),
        Node("logits", Op.LINEAR, ("flat",), channels=2),
    )
    network = with_blocks(Network("chain", InputContract((1, 2, 2), (0.0,), (1.0,)), nodes, "logits"))
    assert [(node.name, node.block) for node in network.compute_nodes()] == [
        ("stem", "stem"),
        ("stage.0.first", "stage.0"),
        ("stage.0.second", "stage.0"),
        ("stage.1.first", "stage.1.first"),
        ("other", "stage.1.first"),
        ("logits", "logits"),
    ]
    assert network.by_name()["flat"].block
