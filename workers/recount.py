"""What a file holds, counted from its own arrays, and from the graph that a runtime makes of it.

Everything is compared with the network that the file was written from. Nothing here trusts the writer: a layer is
followed from its operator to its constants, and bits are counted as the different values that are really there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from search_spaces.costs import WORD_BYTES, weight_words
from search_spaces.network import Network, Node, Op
from search_spaces.precision import Precision
from search_spaces.quantisation import is_quantised_layer, plan_quantisation
from workers.onnx_session import COMPUTE_OPERATORS, executed_nodes, open_plain_session
from workers.onnx_writer import INPUT_NAME
from workers.weight_grids import fits_bits, is_on_grid
from workers.weights import weight_shapes

_KEPT = (Op.OPAQUE, Op.POINTWISE)
_WEIGHT_PLACE = {"QLinearConv": 3, "QGemm": 3, "QLinearMatMul": 3}
_BIAS_PLACE = {"QLinearConv": 8, "QGemm": 6}
_LANES = 16
"""Channels that a runtime computes at once: it fills the last ones of a depthwise layer up with zeros."""


class FileMismatchError(RuntimeError):
    """A stored file does not hold the network that it was written from."""


@dataclass(frozen=True)
class _Graph:
    """A model's graph, to be looked up in.

    Attributes:
        nodes: by name.
        makers: by the name of the tensor that they make.
        arrays: the constants.
    """

    nodes: Mapping[str, onnx.NodeProto]
    makers: Mapping[str, onnx.NodeProto]
    arrays: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class _StoredLayer:
    """The constants that a layer's operator is fed.

    Attributes:
        weight: (O, I/g, kh, kw) or (O, I), integers where they are stored so.
        scale: (O,) of integers, else None.
        bias: (O,), or None.
    """

    weight: np.ndarray
    scale: np.ndarray | None
    bias: np.ndarray | None


def recount(network: Network, model: bytes) -> dict[str, float]:
    """Parameters and payload of a file, from its own arrays.

    Raises:
        FileMismatchError: the file is not whole, a layer is missing or one too many, or one has another shape, other
            groups, or weights that are not on the grid that `network` declares.
    """
    graph = _read_graph(model)
    _check_layers(network, graph)
    parameters, size_bytes = 0, _kept_bytes(network, graph)
    for name, stored in _stored_layers(network, graph).items():
        precision = network.by_name()[name].precision
        parameters += stored.weight.size
        words = weight_words(precision, len(stored.weight)) + (0 if stored.bias is None else stored.bias.size)
        size_bytes += -(-stored.weight.size * precision.weight_bits // 8) + WORD_BYTES * words
    return {"parameters": parameters, "size_bytes": size_bytes}


def _stored_layers(network: Network, graph: _Graph) -> dict[str, _StoredLayer]:
    """What each layer's operator is fed, once it is known to be what the network declares."""
    shapes = weight_shapes(network)
    found: dict[str, _StoredLayer] = {}
    for layer in network.compute_nodes():
        stored = found[layer.name] = _read_layer(layer, graph)
        _check_bits(layer, stored)
        _check_shapes(layer, stored, shapes)
    return found


def _read_graph(model: bytes) -> _Graph:
    try:
        graph = onnx.ModelProto.FromString(model).graph
        arrays = {array.name: onnx.numpy_helper.to_array(array) for array in graph.initializer}
    except (DecodeError, ValueError, TypeError) as error:
        raise FileMismatchError(f"the file is no whole ONNX file: {error}") from error
    return _Graph(
        {node.name: node for node in graph.node},
        {name: node for node in graph.node for name in node.output},
        arrays,
    )


def _check_layers(network: Network, graph: _Graph) -> None:
    declared = {layer.name for layer in network.compute_nodes()}
    own = {name for name, node in graph.nodes.items() if node.op_type in COMPUTE_OPERATORS and name not in declared}
    superfluous = [name for name in sorted(own) if not _is_kept(name, network)]
    if superfluous:
        raise FileMismatchError(f"the file has a layer {superfluous[0]!r} that the network has not")


def _is_kept(name: str, network: Network) -> bool:
    """Whether a node of a file is a part of one that the network keeps as it is."""
    owner, slash, _ = name.partition("/")
    return bool(slash) and any(node.name == owner and node.op in _KEPT for node in network.nodes)


def _read_layer(layer: Node, graph: _Graph) -> _StoredLayer:
    node = graph.nodes.get(layer.name)
    wanted = "Gemm" if layer.op is Op.LINEAR else "Conv"
    if node is None or node.op_type != wanted or len(node.input) < 2:
        raise FileMismatchError(f"the file has no {wanted} {layer.name!r}")
    _check_attributes(layer, node)
    weight, scale = _constant(layer, "weights", node.input[1], graph)
    bias = _constant(layer, "bias", node.input[2], graph)[0] if len(node.input) > 2 else None
    return _StoredLayer(weight, scale, bias)


def _constant(layer: Node, what: str, name: str, graph: _Graph) -> tuple[np.ndarray, np.ndarray | None]:
    """A constant, and its scales where it is stored in integers; followed from where it is read."""
    maker = graph.makers.get(name)
    names = [name] if maker is None or maker.op_type != "DequantizeLinear" else list(maker.input[:2])
    arrays = [graph.arrays.get(one) for one in names]
    if arrays[0] is None or arrays[-1] is None:
        raise FileMismatchError(f"the file has no {what} of {layer.name!r}")
    return arrays[0], arrays[1] if len(arrays) > 1 else None


def _check_attributes(layer: Node, node: onnx.NodeProto) -> None:
    if layer.op is Op.LINEAR:
        return
    told = {one.name: tuple(one.ints) if one.ints else one.i for one in node.attribute}
    declared = {
        "kernel_shape": layer.kernel,
        "strides": layer.stride,
        "pads": layer.padding,
        "dilations": layer.dilation,
        "group": layer.groups,
    }
    for name, value in declared.items():
        if told.get(name) != value:
            raise FileMismatchError(f"{layer.name!r} has {name} {told.get(name)} in the file, declared {value}")


def _check_shapes(layer: Node, stored: _StoredLayer, shapes: Mapping[str, tuple[int, ...]]) -> None:
    outputs = shapes[f"{layer.name}.weight"][:1]
    declared = {
        "weight": (stored.weight, shapes[f"{layer.name}.weight"]),
        "scale": (stored.scale, outputs if is_quantised_layer(layer) else None),
        "bias": (stored.bias, outputs if layer.bias else None),
    }
    for part, (array, shape) in declared.items():
        found = None if array is None else array.shape
        if found != shape:
            raise FileMismatchError(f"the {part} of {layer.name!r} has the shape {found} in the file, declared {shape}")


def _check_bits(layer: Node, stored: _StoredLayer) -> None:
    if not np.isfinite(stored.weight).all() or (stored.scale is not None and not (stored.scale > 0).all()):
        raise FileMismatchError(f"{layer.name!r} has weights or scales that are not usable numbers")
    if not _is_in_bits(stored.weight, layer.precision):
        found = f"{stored.weight.dtype} of {len(np.unique(stored.weight)):,} values"
        raise FileMismatchError(f"{layer.name!r} is stored as {found}, declared {layer.precision}")


def _is_in_bits(weight: np.ndarray, precision: Precision) -> bool:
    """Whether the stored values are of the declared grid: integers symmetric about zero, or floats."""
    if weight.dtype != np.int8:
        return weight.dtype == np.float32 and not precision.is_integer and is_on_grid(weight, precision)
    return precision.is_integer and fits_bits(weight, precision.weight_bits)


def _kept_bytes(network: Network, graph: _Graph) -> int:
    """Of batch norms that stay (a scale and a shift), and of the constants of what is kept as it is."""
    total = 0
    for node in network.nodes:
        if node.op is Op.BATCH_NORM:
            total += 2 * WORD_BYTES * graph.arrays[f"{node.name}.running_var"].size
        elif node.op is Op.OPAQUE:
            total += sum(array.nbytes for name, array in graph.arrays.items() if name.startswith(f"{node.name}/"))
    return total


# --- what executes ----------------------------------------------------------------------------------------------


def recount_optimised(network: Network, model: bytes, optimised: onnx.ModelProto) -> None:
    """Check that the graph that a runtime executes has exactly the file's layers, weights and biases.

    A runtime reorders weights for its kernels and fills them up with zeros, so that those different from zero must be
    the same ones; it may merge what is behind a layer into it, and then only their number is known.

    Raises:
        FileMismatchError: a layer's weights, bias or groups are others, or there is a layer too many.
    """
    arrays = {array.name: onnx.numpy_helper.to_array(array) for array in optimised.graph.initializer}
    executed, readers = executed_nodes(network, optimised), network.consumers()
    found = {node.output[0] for node in executed.values()}
    for node in optimised.graph.node:
        if node.op_type in COMPUTE_OPERATORS and node.output[0] not in found and not _is_kept(node.name, network):
            raise FileMismatchError(f"the runtime executes a layer {node.name!r} that the network has not")
    for name, stored in _stored_layers(network, _read_graph(model)).items():
        layer, node = network.by_name()[name], executed[name]
        merged = any(reader.op in (*_KEPT, Op.BATCH_NORM) for reader in readers[name])
        weight, bias = _operands(node, arrays)
        _check_same(f"the weights of {name!r}", weight, stored.weight, merged)
        if not merged:
            _check_same(f"the bias of {name!r}", bias, stored.bias, merged)
        _check_groups(layer, node, weight)


def _operands(node: onnx.NodeProto, arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Weights and bias of an executed layer."""
    places = (_WEIGHT_PLACE.get(node.op_type, 1), _BIAS_PLACE.get(node.op_type, 2))
    names = [node.input[place] if place < len(node.input) else "" for place in places]
    return arrays.get(names[0]), arrays.get(names[1])


def _check_same(what: str, executed: np.ndarray | None, stored: np.ndarray | None, merged: bool) -> None:
    ours, theirs = _in_order(stored), _in_order(executed)
    if ours.size != theirs.size or not (merged or np.array_equal(ours, theirs)):
        raise FileMismatchError(f"{what} that the runtime executes are not those of the file")


def _in_order(array: np.ndarray | None) -> np.ndarray:
    """The values that are not zero, in order of size: the same whatever layout a kernel likes."""
    return np.zeros(0) if array is None else np.sort(array[array != 0], axis=None)


def _check_groups(layer: Node, node: onnx.NodeProto, weight: np.ndarray | None) -> None:
    told = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    is_filled_up = weight is not None and weight.shape[1] == 1 and layer.groups < told < layer.groups + _LANES
    if told != layer.groups and not is_filled_up:
        raise FileMismatchError(f"{layer.name!r} executes in {told} groups, declared {layer.groups}")


def check_activation_bits(network: Network, model: bytes, images: np.ndarray) -> None:
    """Check that no layer is fed more different values than its activation bits can tell apart.

    Args:
        network: what the file was written from.
        model: the file, at a batch of 1.
        images: float32 (n, C, H, W), normalised; a few are enough to show it.

    Raises:
        FileMismatchError: naming the layer.
    """
    layers = [layer for layer in network.compute_nodes() if is_quantised_layer(layer)]
    if not layers:
        return
    plan = plan_quantisation(network)
    nodes = _read_graph(model).nodes
    fed = {layer.name: str(nodes[layer.name].input[0]) for layer in layers}
    names = sorted(set(fed.values()))
    session = open_plain_session(_with_outputs(model, names))
    runs = [session.run(names, {INPUT_NAME: image[None]}) for image in images]
    seen = {name: np.concatenate([np.ravel(run[index]) for run in runs]) for index, name in enumerate(names)}
    for layer in layers:
        bits = plan.bits[plan.root[layer.inputs[0]]]
        levels = len(np.unique(seen[fed[layer.name]]))
        if levels > 2**bits:
            raise FileMismatchError(f"{layer.name!r} is fed {levels} different values, declared {bits} bits")


def _with_outputs(model: bytes, names: list[str]) -> bytes:
    proto = onnx.ModelProto.FromString(model)
    for name in names:
        proto.graph.output.add(name=name).type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    return bytes(proto.SerializeToString())
