"""A neural network as plain data: named nodes in topological order, each with one output tensor.

The rest of Espalier is interpreters of this data: shapes and costs here in `search_spaces`, the
torch builder and the ONNX writer in `workers`. It must not know torch, ONNX or any runtime.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any

from search_spaces.precision import FP32, Precision, parse_precision

Shape = tuple[int, ...]
"""A tensor's shape without the batch: (channels, height, width), or (features,)."""


class Op(StrEnum):
    """What a node computes. Weighted: conv, linear and batch_norm."""

    INPUT = "input"
    CONV = "conv"
    LINEAR = "linear"
    BATCH_NORM = "batch_norm"
    RELU = "relu"
    RELU6 = "relu6"
    SIGMOID = "sigmoid"
    HARD_SIGMOID = "hard_sigmoid"
    SWISH = "swish"
    HARD_SWISH = "hard_swish"
    ADD = "add"
    MULTIPLY = "multiply"
    CONCAT = "concat"
    SLICE = "slice"
    SHUFFLE = "shuffle"
    PAD = "pad"
    MAX_POOL = "max_pool"
    AVERAGE_POOL = "average_pool"
    GLOBAL_AVERAGE_POOL = "global_average_pool"
    FLATTEN = "flatten"
    POINTWISE = "pointwise"
    OPAQUE = "opaque"


COMPUTE_OPS = frozenset({Op.CONV, Op.LINEAR})
"""The ops that hold multiply-accumulates, and so have a precision."""

ACTIVATION_OPS = frozenset({Op.RELU, Op.RELU6, Op.SIGMOID, Op.HARD_SIGMOID, Op.SWISH, Op.HARD_SWISH})
"""Functions of one value at a time. HARD_SIGMOID is relu6(x + 3) / 6, SWISH is x times SIGMOID, HARD_SWISH x times
HARD_SIGMOID (Howard et al., arXiv 1905.02244). POINTWISE is any other such function; its body says which."""


@dataclass(frozen=True, slots=True)
class Node:
    """One operator. Its name is also the name of its output tensor.

    Attributes:
        channels: output channels of a conv or a slice, output features of a linear; None elsewhere (inferred).
        kernel, stride: (vertical, horizontal), of a conv or a pool.
        dilation: (vertical, horizontal) distance between the taps of a conv.
        padding: (top, left, bottom, right), zeros around a conv's input or by a pad, ignored cells around a pool's.
        groups: number of groups g of a conv or a shuffle. Channels per group is G = input channels / g.
        start: first channel of a slice.
        bias: whether a conv or linear adds a trained constant per output channel.
        precision: of a conv or linear; elsewhere FP32.
        block: the unit that precision of scope `block` is chosen for; empty outside of blocks.
        shape: output shape of an opaque node, without the batch.
        body: what a pointwise or opaque node computes, in words that only the workers read.
        body_bytes: of the constants in `body`.
    """

    name: str
    op: Op
    inputs: tuple[str, ...] = ()
    channels: int | None = None
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1
    bias: bool = False
    precision: Precision = FP32
    block: str = ""
    dilation: tuple[int, int] = (1, 1)
    start: int = 0
    shape: Shape = ()
    body: str = ""
    body_bytes: int = 0


class Interpolation(StrEnum):
    """How an image is made smaller or larger."""

    BILINEAR = "bilinear"
    BICUBIC = "bicubic"


@dataclass(frozen=True, slots=True)
class InputContract:
    """How an image becomes what a network is fed: float32, NCHW, values `(x - mean) / std` per channel of x in [0, 1].

    An image of another size is first resized, keeping its proportions, so that its shorter side has `resize`
    pixels; then the middle of the wanted height and width is cut out. One channel is grey, three are red, green, blue.

    Attributes:
        shape: (channels, height, width).
        mean, std: per channel.
        resize: pixels; 0 means no more than is needed to cover height and width.
        interpolation: used for resizing, with antialiasing.
    """

    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int = 0
    interpolation: Interpolation = Interpolation.BILINEAR


@dataclass(frozen=True, slots=True)
class Network:
    """A directed acyclic graph of nodes in topological order, with one input and one output.

    Raises:
        ValueError: on construction, when names repeat or have a slash, an input is not an earlier node, or the
            output is not a node.
    """

    name: str
    input: InputContract
    nodes: tuple[Node, ...]
    output: str

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for node in self.nodes:
            if node.name in seen:
                raise ValueError(f"node name {node.name!r} is used twice")
            if "/" in node.name:
                raise ValueError(f"node name {node.name!r} has a slash, which separates kind and target of a decision")
            unknown = [name for name in node.inputs if name not in seen]
            if unknown:
                raise ValueError(f"node {node.name!r} reads {unknown[0]!r}, which is no earlier node")
            seen.add(node.name)
        if self.output not in seen:
            raise ValueError(f"the output {self.output!r} is not a node")

    def by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    def compute_nodes(self) -> tuple[Node, ...]:
        """The convs and linears, in order: what is called a layer everywhere."""
        return tuple(node for node in self.nodes if node.op in COMPUTE_OPS)

    def consumers(self) -> dict[str, list[Node]]:
        """For every tensor the nodes that read it, in order."""
        readers: dict[str, list[Node]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for name in node.inputs:
                readers[name].append(node)
        return readers

    def with_nodes(self, changed: Mapping[str, Node]) -> Network:
        """The same graph with the named nodes replaced."""
        return replace(self, nodes=tuple(changed.get(node.name, node) for node in self.nodes))


def in_precision(network: Network, precision: Precision) -> Network:
    """The same network with every layer in one precision."""
    return network.with_nodes({layer.name: replace(layer, precision=precision) for layer in network.compute_nodes()})


def unused_name(name: str, taken: Container[str]) -> str:
    """The name itself, or with the first number behind it that makes it one that is not taken."""
    number, candidate = 1, name
    while candidate in taken:
        number += 1
        candidate = f"{name}.{number}"
    return candidate


def infer_shapes(network: Network) -> dict[str, Shape]:
    """Shape of every tensor, without the batch.

    Raises:
        ValueError: an operator does not fit its input; the message names the node.
    """
    shapes: dict[str, Shape] = {}
    for node in network.nodes:
        if node.op is Op.INPUT:
            shapes[node.name] = network.input.shape
            continue
        shapes[node.name] = output_shape(node, [shapes[name] for name in node.inputs])
    return shapes


def output_shape(node: Node, inputs: list[Shape]) -> Shape:
    """Shape of a node's output for inputs of these shapes.

    Raises:
        ValueError: the operator does not fit its input; the message names the node.
    """
    rule = _SHAPE_RULES.get(node.op)
    try:
        return inputs[0] if rule is None else rule(node, inputs)
    except ValueError as error:
        raise ValueError(f"node {node.name!r}: {error}") from None


def _linear_shape(node: Node, inputs: list[Shape]) -> Shape:
    if len(inputs[0]) != 1:
        raise ValueError(f"a linear layer needs a flat input, not {inputs[0]}")
    return (_required_channels(node),)


def _pool_shape(node: Node, inputs: list[Shape]) -> Shape:
    return (inputs[0][0], *_window_shape(node, _map(inputs[0])))


def _concat_shape(_: Node, inputs: list[Shape]) -> Shape:
    first = inputs[0]
    if any(shape[1:] != first[1:] for shape in inputs):
        raise ValueError(f"cannot concatenate {inputs}")
    return (sum(shape[0] for shape in inputs), *first[1:])


def _add_shape(_: Node, inputs: list[Shape]) -> Shape:
    if any(shape != inputs[0] for shape in inputs):
        raise ValueError(f"cannot add {inputs}")
    return inputs[0]


def _shuffle_shape(node: Node, inputs: list[Shape]) -> Shape:
    if inputs[0][0] % node.groups:
        raise ValueError(f"{inputs[0][0]} channels cannot be shuffled in {node.groups} groups")
    return inputs[0]


def _multiply_shape(_: Node, inputs: list[Shape]) -> Shape:
    """A map times a map of the same shape, or times one value per channel (squeeze-and-excite)."""
    data, gate = inputs
    if gate not in (data, (data[0], 1, 1)):
        raise ValueError(f"cannot multiply {data} by {gate}")
    return data


def _slice_shape(node: Node, inputs: list[Shape]) -> Shape:
    channels, shape = _required_channels(node), inputs[0]
    if node.start < 0 or node.start + channels > shape[0]:
        raise ValueError(f"channels {node.start} to {node.start + channels} are not all there in {shape[0]}")
    return (channels, *shape[1:])


def _pad_shape(node: Node, inputs: list[Shape]) -> Shape:
    channels, height, width = _map(inputs[0])
    top, left, bottom, right = node.padding
    return (channels, height + top + bottom, width + left + right)


def _opaque_shape(node: Node, _: list[Shape]) -> Shape:
    if not node.shape or min(node.shape) < 1:
        raise ValueError("needs the shape that it makes")
    return node.shape


def _map(shape: Shape) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise ValueError(f"needs (channels, height, width), not {shape}")
    return shape


def _conv_shape(node: Node, inputs: list[Shape]) -> Shape:
    shape, channels = _map(inputs[0]), _required_channels(node)
    if shape[0] % node.groups or channels % node.groups:
        raise ValueError(f"{shape[0]} -> {channels} channels do not divide into {node.groups} groups")
    return (channels, *_window_shape(node, shape))


def _window_shape(node: Node, shape: Shape) -> tuple[int, int]:
    top, left, bottom, right = node.padding
    (taps_down, taps_along), (step_down, step_along) = node.kernel, node.dilation
    reach_down, reach_along = (taps_down - 1) * step_down + 1, (taps_along - 1) * step_along + 1
    height = (shape[1] + top + bottom - reach_down) // node.stride[0] + 1
    width = (shape[2] + left + right - reach_along) // node.stride[1] + 1
    if height < 1 or width < 1:
        raise ValueError(f"a {(reach_down, reach_along)} window does not fit into {shape[1:]}")
    return height, width


def _required_channels(node: Node) -> int:
    if node.channels is None or node.channels < 1:
        raise ValueError("needs at least one output channel")
    return node.channels


_SHAPE_RULES: dict[Op, Callable[[Node, list[Shape]], Shape]] = {
    Op.CONV: _conv_shape,
    Op.LINEAR: _linear_shape,
    Op.MAX_POOL: _pool_shape,
    Op.AVERAGE_POOL: _pool_shape,
    Op.GLOBAL_AVERAGE_POOL: lambda _, inputs: (_map(inputs[0])[0], 1, 1),
    Op.FLATTEN: lambda _, inputs: (math.prod(inputs[0]),),
    Op.CONCAT: _concat_shape,
    Op.ADD: _add_shape,
    Op.MULTIPLY: _multiply_shape,
    Op.SLICE: _slice_shape,
    Op.SHUFFLE: _shuffle_shape,
    Op.PAD: _pad_shape,
    Op.OPAQUE: _opaque_shape,
}
"""The other ops keep their input's shape."""


def is_depthwise(node: Node, input_channels: int) -> bool:
    """Whether each group reads one channel (G = 1), so that output channels follow input channels."""
    return node.op is Op.CONV and node.groups > 1 and node.groups == input_channels


_DEFAULTS = {field.name: field.default for field in fields(Node)}


def network_to_json(network: Network) -> dict[str, Any]:
    """Plain JSON types; a node's default attributes are left out."""
    return {
        "name": network.name,
        "input": contract_to_json(network.input),
        "nodes": [_node_to_json(node) for node in network.nodes],
        "output": network.output,
    }


def contract_to_json(contract: InputContract) -> dict[str, Any]:
    """Plain JSON types; default attributes are left out."""
    out = {"shape": list(contract.shape), "mean": list(contract.mean), "std": list(contract.std)}
    changed: dict[str, Any] = {"resize": contract.resize} if contract.resize else {}
    if contract.interpolation is not Interpolation.BILINEAR:
        changed["interpolation"] = str(contract.interpolation)
    return out | changed


def contract_from_json(data: Mapping[str, Any]) -> InputContract:
    """Inverse of `contract_to_json`."""
    shape, mean, std = (tuple(data[key]) for key in ("shape", "mean", "std"))
    interpolation = Interpolation(data.get("interpolation", Interpolation.BILINEAR))
    return InputContract(shape, mean, std, data.get("resize", 0), interpolation)


def _node_to_json(node: Node) -> dict[str, Any]:
    out: dict[str, Any] = {"name": node.name, "op": str(node.op)}
    for field in fields(Node)[2:]:
        value = getattr(node, field.name)
        if value != _DEFAULTS[field.name]:
            out[field.name] = _plain(value)
    return out


def _plain(value: Any) -> Any:
    if isinstance(value, Precision):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def network_from_json(data: Mapping[str, Any]) -> Network:
    """Inverse of `network_to_json`, for data that Espalier itself has written."""
    nodes = tuple(_node_from_json(node) for node in data["nodes"])
    return Network(data["name"], contract_from_json(data["input"]), nodes, data["output"])


def _node_from_json(data: Mapping[str, Any]) -> Node:
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
    values["op"] = Op(values["op"])
    if "precision" in values:
        values["precision"] = parse_precision(values["precision"])
    return Node(**values)


def network_digest(network: Network) -> str:
    """SHA-256 over the canonical JSON: equal for equal networks, in any process and version."""
    canonical = json.dumps(network_to_json(network), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
