"""Divides a network into blocks, for networks whose description comes without them.

A block is what precision of scope `block` is chosen for. It ends where everything passes through one tensor: after
a residual addition, say, or between two layers of a chain. A depthwise layer shares the block of the one behind it.
No block is a single layer between two others, which could not be computed in another precision than they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import takewhile

from search_spaces.coupling import follows_input
from search_spaces.network import COMPUTE_OPS, Network, Node, Op, infer_shapes, unused_name


def with_blocks(network: Network) -> Network:
    """The same network with the blocks of all nodes set, named after what their layers have in common."""
    shapes = infer_shapes(network)
    mixing = {node.name for node in network.compute_nodes() if not follows_input(node, shapes)}
    changed: dict[str, Node] = {}
    taken: set[str] = set()
    for nodes in _blocks(_segments(network), mixing):
        layers = [node.name for node in nodes if node.op in COMPUTE_OPS]
        if layers:
            name = unused_name(_common_name(layers), taken)
            taken.add(name)
            changed |= {node.name: replace(node, block=name) for node in nodes if node.op is not Op.INPUT}
    return network.with_nodes(changed)


def _segments(network: Network) -> Iterator[list[Node]]:
    """Nodes up to each tensor that everything passes through."""
    place = {node.name: index for index, node in enumerate(network.nodes)}
    last_read = [max((place[r.name] for r in readers), default=0) for readers in network.consumers().values()]
    segment: list[Node] = []
    farthest = 0  # where the tensors made before are read last
    for index, node in enumerate(network.nodes):
        segment.append(node)
        if farthest <= index:
            yield segment
            segment = []
        farthest = max(farthest, last_read[index])
    if segment:
        yield segment


def _blocks(segments: Iterator[list[Node]], mixing: set[str]) -> Iterator[list[Node]]:
    """Segments put together until a block can be computed in another precision than its neighbours."""
    block: list[Node] = []
    waiting: list[Node] = []  # nodes without layers, behind a block that may be complete
    is_first = True
    for segment in segments:
        if not any(node.op in COMPUTE_OPS for node in segment):
            waiting += segment
            continue
        if block and _is_complete(block, waiting, mixing, is_first):
            yield block
            block, is_first = [], False
        block += waiting + segment
        waiting = []
    if block or waiting:
        yield block + waiting


def _is_complete(block: Sequence[Node], behind: Sequence[Node], mixing: set[str], is_first: bool) -> bool:
    """Whether a block may end here: behind a layer that mixes channels, and not with that layer alone.

    A layer in floating point whose input and output are both integers is made an integer one by runtimes. It may be
    alone where the image comes in, or where what it makes is averaged before it is read.
    """
    layers = [node.name for node in block if node.op in COMPUTE_OPS]
    if not layers or layers[-1] not in mixing:
        return False
    return len(layers) > 1 or is_first or any(node.op is Op.GLOBAL_AVERAGE_POOL for node in behind)


def _common_name(layers: Sequence[str]) -> str:
    """What the dotted names begin with alike, or the first one's."""
    columns = zip(*(layer.split(".") for layer in layers), strict=False)
    shared = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]
    return ".".join(shared) or layers[0]
