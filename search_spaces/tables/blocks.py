"""Blocks as ProxylessNAS (arXiv 1812.00332) and Once-for-All (arXiv 1908.09791) name them in their latency tables.

`expanded_conv-input:112x112x16-output:56x56x24-expand:6-kernel:3-stride:2-idskip:0`, `Conv-input:...-output:...`,
`Conv_1-...`, `Logits-input:7x7x1280-output:1000`; shapes are height x width x channels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from search_spaces.costs import Workload, WorkloadKind
from search_spaces.network import Network, Node, Op, Shape, infer_shapes
from search_spaces.precision import Precision
from search_spaces.signatures import workload_of

_KEY = re.compile(r"(?P<block>[A-Za-z][A-Za-z0-9_]{0,49})-(?P<fields>.+)")
_SHAPE = re.compile(r"[0-9]{1,6}(x[0-9]{1,6}){0,2}")
_NUMBER = re.compile(r"[0-9]{1,9}")
_FIELD = re.compile(r"[a-z]{1,20}")


def parse_block(key: str, precision: Precision) -> Workload:
    """The workload that a key of a table names.

    Raises:
        ValueError: it is no such key.
    """
    match = _KEY.fullmatch(key)
    if match is None:
        raise ValueError("write NAME-input:HxWxC-output:HxWxC and further name:number, with dashes between")
    fields: dict[str, str] = {}
    for part in match["fields"].split("-"):
        name, _, value = part.partition(":")
        if not _FIELD.fullmatch(name) or name in fields:
            raise ValueError(f"{part[:40]!r} is not one name:value")
        fields[name] = value
    shapes = [_parse_shape(fields, name) for name in ("input", "output")]
    numbers = {name: _parse_number(name, value) for name, value in fields.items() if name not in ("input", "output")}
    return _workload(match["block"].lower(), shapes[0], shapes[1], numbers, precision, key)


def blocks_of(network: Network) -> list[tuple[Workload, tuple[str, ...]]]:
    """The blocks that such a table must have for a network, each with the nodes that it stands for.

    Inverted residuals, and around them a stem, a head and a classifier. Nothing for networks that are made otherwise.
    """
    shapes = infer_shapes(network)
    precisions = {node.precision for node in network.compute_nodes()}
    pools = [node for node in network.nodes if node.op is Op.GLOBAL_AVERAGE_POOL]
    members: dict[str, list[Node]] = {}
    for node in network.nodes:
        if node.op not in (Op.INPUT, Op.FLATTEN):
            is_last_pool = node in pools[-1:]  # such tables count it with the classifier; others are in blocks
            members.setdefault("classifier" if is_last_pool else node.block or node.name, []).append(node)
    is_inverted = any(f"{block}.depthwise" in {node.name for node in nodes} for block, nodes in members.items())
    if len(precisions) != 1 or not is_inverted:
        return []
    found = [_block(block, nodes, shapes, precisions.copy().pop()) for block, nodes in members.items()]
    return [
        (workload, tuple(node.name for node in nodes))
        for workload, nodes in zip(found, members.values(), strict=True)
        if workload is not None
    ]


_INSIDE = frozenset({Op.CONV, Op.BATCH_NORM, Op.RELU, Op.RELU6, Op.ADD})
"""What an inverted residual of such a table is made of; one with anything else takes another time."""
_AROUND = {"stem": "conv", "head": "conv_1", "classifier": "logits"}


def _block(block: str, nodes: list[Node], shapes: Mapping[str, Shape], precision: Precision) -> Workload | None:
    by_name = {node.name: node for node in nodes}
    source, output = _outside(shapes[nodes[0].inputs[0]]), _outside(shapes[nodes[-1].name])
    if block in _AROUND:
        return _workload(_AROUND[block], source, output, {}, precision, block)
    depthwise = by_name.get(f"{block}.depthwise")
    if depthwise is None or not _INSIDE.issuperset(node.op for node in nodes):
        return None
    expand, rest = divmod(shapes[depthwise.name][0], source[-1])
    if rest:
        return None  # a name has whole numbers, and a rounded one is another block's
    numbers = {
        "expand": expand,
        "kernel": depthwise.kernel[0],
        "stride": depthwise.stride[0],
        "idskip": int(any(node.op is Op.ADD for node in nodes)),
    }
    return _workload("expanded_conv", source, output, numbers, precision, block)


def _outside(shape: Shape) -> list[int]:
    """(height, width, channels) of (channels, height, width); a vector stays one."""
    return [*shape[1:], shape[0]]


def _workload(
    block: str, source: list[int], output: list[int], numbers: Mapping[str, int], precision: Precision, name: str
) -> Workload:
    described = {
        "block": block,
        "input": source,
        "output": output,
        "numbers": dict(numbers),
        "precision": str(precision),
    }
    return workload_of(WorkloadKind.BLOCK, described, name)


def _parse_shape(fields: Mapping[str, str], name: str) -> list[int]:
    text = fields.get(name, "")
    if not _SHAPE.fullmatch(text):
        raise ValueError(f"{name} is {text[:40]!r}; write {name}:HxWxC")
    return [int(part) for part in text.split("x")]


def _parse_number(name: str, text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{name} is {text[:40]!r}; write a whole number")
    return int(text)
