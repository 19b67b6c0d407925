"""A folded Network and its weights written as an ONNX file: float, or fused Q/DQ integers where it says so.

The protobuf is built directly, without a tracing exporter, in some milliseconds. What is made beside a node's own
output and its weights has a name with a slash, which no node has. This file knows how each operator is spelt in ONNX;
which tensors are quantised is `onnx_quantize`'s business, what a runtime makes of the file `onnx_session`'s.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import onnx

from search_spaces.network import Network, Node, Op, Shape, infer_shapes
from search_spaces.precision import CONTAINER_BITS
from search_spaces.quantisation import QuantisationPlan, is_quantised_layer, plan_quantisation
from workers.onnx_quantize import (
    ActivationGrid,
    TensorRange,
    activation_grid,
    check_writable,
    image_range,
    quantise_bias,
    quantise_weight,
)
from workers.opaque import IR_VERSION, OPSET, decode_body
from workers.opaque import OUTPUT as OPAQUE_OUTPUT
from workers.opaque import input_name as opaque_input
from workers.weight_grids import quantised_weight
from workers.weights import BATCH_NORM_EPSILON

INPUT_NAME = "image"
OUTPUT_NAME = "logits"

Batch = int | Literal["N"]

_TYPE_CODES = {
    np.dtype(np.float32): onnx.TensorProto.FLOAT,
    np.dtype(np.uint8): onnx.TensorProto.UINT8,
    np.dtype(np.int8): onnx.TensorProto.INT8,
    np.dtype(np.int32): onnx.TensorProto.INT32,
    np.dtype(np.int64): onnx.TensorProto.INT64,
}


def write_onnx(
    network: Network,
    weights: Mapping[str, np.ndarray],
    ranges: Mapping[str, TensorRange] | None = None,
    batch: Batch = 1,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """Write a model with input `image` (batch, C, H, W) and output `logits` (batch, classes), both float32.

    Args:
        network: with batch norms folded. Each node's name is the name of its ONNX node.
        weights: float32, as `Weights` describes; those in few bits are brought to their grid or codebook here.
        ranges: smallest and largest value of each of `calibrated_tensors(network)`.
        batch: "N" leaves it open; runtimes are faster when it is fixed.
        metadata: stored in the file, beside the input contract.

    Raises:
        ValueError: a range is missing, a precision cannot be written, or a node has the input's or output's name.
    """
    return bytes(build_model(network, weights, ranges, batch, metadata).SerializeToString())


def build_model(
    network: Network,
    weights: Mapping[str, np.ndarray],
    ranges: Mapping[str, TensorRange] | None = None,
    batch: Batch = 1,
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """As `write_onnx`, before it is bytes: those take the network's memory twice more while they are made."""
    taken = {INPUT_NAME, OUTPUT_NAME} & {node.name for node in network.nodes if node.op is not Op.INPUT}
    if taken:
        raise ValueError(f"no node may be called {min(taken)!r}: the file's own input or output is")
    writer = _Writer(network, weights, ranges or {})
    for node in network.nodes:
        _WRITE[node.op](writer, node)
    return writer.finish(batch, metadata or {})


def with_batch(model: bytes, batch: Batch) -> bytes:
    """The same model for another batch size: nothing but its input and output states one."""
    proto = onnx.ModelProto.FromString(model)
    for value in (*proto.graph.input, *proto.graph.output):
        _set_batch(value.type.tensor_type.shape.dim[0], batch)
    return bytes(proto.SerializeToString())


def _set_batch(dimension: Any, batch: Batch) -> None:
    if isinstance(batch, int):
        dimension.dim_value = batch
    else:
        dimension.dim_param = batch


class _Writer:
    """The graph being written, and which quantised tensors it has already."""

    def __init__(self, network: Network, weights: Mapping[str, np.ndarray], ranges: Mapping[str, TensorRange]) -> None:
        self.network = network
        self.weights = weights
        self.shapes = infer_shapes(network)
        check_writable(network)
        self.plan: QuantisationPlan = plan_quantisation(network)
        self.model = onnx.ModelProto(ir_version=IR_VERSION, producer_name="espalier")
        self.graph = self.model.graph
        self.graph.name = network.name or "network"
        self._ranges = ranges
        self._grids: dict[str, ActivationGrid] = {}
        self._dequantised: set[str] = set()
        self.integers: dict[str, str] = {}
        self._constants: set[str] = set()

    def add(self, op_type: str, name: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        node = self.graph.node.add(op_type=op_type, name=name, input=inputs, output=[output])
        for key, value in attributes.items():
            _set_attribute(node.attribute.add(name=key), value)

    def constant(self, name: str, array: np.ndarray) -> str:
        if name not in self._constants:
            self._constants.add(name)
            self.graph.initializer.add(
                name=name, dims=array.shape, data_type=_TYPE_CODES[array.dtype], raw_data=array.tobytes()
            )
        return name

    def read(self, reader: str, tensor: str) -> str:
        """The ONNX name that `reader` is fed for `tensor`; quantises the tensor at its first such reader."""
        if not self.plan.reads_quantised(reader, tensor):
            return _onnx_name(self.network, tensor)
        dequantised = f"{tensor}/dequantised"
        if tensor not in self._dequantised:
            self._dequantised.add(tensor)
            integers = self.read_integers(tensor)
            self.add("DequantizeLinear", dequantised, [integers, *self._numbers(tensor)], dequantised)
        return dequantised

    def read_integers(self, tensor: str) -> str:
        """The ONNX name of the integers themselves, of a tensor that exists in integers only."""
        if tensor not in self.integers:
            self.integers[tensor] = self._quantise(tensor)
        return self.integers[tensor]

    def zero_point(self, tensor: str) -> str:
        """The integer that means zero."""
        return self._numbers(tensor)[1]

    def grid(self, tensor: str) -> ActivationGrid:
        root = self.plan.root[tensor]
        if root not in self._grids:
            self._grids[root] = activation_grid(self._range(root), self.plan.bits[root])
        return self._grids[root]

    def _range(self, root: str) -> TensorRange:
        if self.network.nodes[0].name == root:
            return image_range(self.network.input)
        if root not in self._ranges:
            raise ValueError(f"tensor {root!r} is quantised and has no range: calibrate first")
        return self._ranges[root]

    def _quantise(self, tensor: str) -> str:
        grid = self.grid(tensor)
        quantised = f"{tensor}/quantised"
        self.add("QuantizeLinear", quantised, [_onnx_name(self.network, tensor), *self._numbers(tensor)], quantised)
        if grid.top < 2**CONTAINER_BITS - 1:
            # Clipping the integers fuses; clipping the floats before them is many times slower.
            bounds = [self.constant(f"uint8/{value}", np.array(value, np.uint8)) for value in (0, grid.top)]
            self.add("Clip", f"{tensor}/clipped", [quantised, *bounds], f"{tensor}/clipped")
            quantised = f"{tensor}/clipped"
        return quantised

    def _numbers(self, tensor: str) -> list[str]:
        root, grid = self.plan.root[tensor], self.grid(tensor)
        return [
            self.constant(f"{root}/scale", np.array(grid.scale)),
            self.constant(f"{root}/zero_point", np.array(grid.zero_point, np.uint8)),
        ]

    def finish(self, batch: Batch, metadata: Mapping[str, str]) -> onnx.ModelProto:
        result = self.read("", self.network.output)
        self.add("Identity", OUTPUT_NAME, [result], OUTPUT_NAME)
        _declare(self.graph.input.add(name=INPUT_NAME), batch, self.network.input.shape)
        _declare(self.graph.output.add(name=OUTPUT_NAME), batch, self.shapes[self.network.output])
        self.model.opset_import.add(domain="", version=OPSET)
        for key, value in {**_contract_metadata(self.network), **metadata}.items():
            self.model.metadata_props.add(key=key, value=value)
        return self.model


def _onnx_name(network: Network, tensor: str) -> str:
    return INPUT_NAME if network.nodes[0].name == tensor else tensor


def _declare(value: Any, batch: Batch, shape: Shape) -> None:
    tensor = value.type.tensor_type
    tensor.elem_type = onnx.TensorProto.FLOAT
    _set_batch(tensor.shape.dim.add(), batch)
    for size in shape:
        tensor.shape.dim.add(dim_value=size)


def _set_attribute(attribute: Any, value: int | float | tuple[int, ...]) -> None:
    if isinstance(value, tuple):
        attribute.type = onnx.AttributeProto.INTS
        attribute.ints.extend(value)
    elif isinstance(value, float):
        attribute.type = onnx.AttributeProto.FLOAT
        attribute.f = value
    else:
        attribute.type = onnx.AttributeProto.INT
        attribute.i = value


def _contract_metadata(network: Network) -> dict[str, str]:
    """What a caller must feed, in the file itself."""
    return {
        "espalier.input.layout": "NCHW",
        "espalier.input.range": "pixels in [0, 1], then (x - mean) / std",
        "espalier.input.mean": json.dumps(network.input.mean),
        "espalier.input.std": json.dumps(network.input.std),
        "espalier.input.resize": str(network.input.resize),
        "espalier.input.interpolation": str(network.input.interpolation),
    }


def _write_layer(writer: _Writer, node: Node) -> None:
    source = writer.read(node.name, node.inputs[0])
    parameters = _integer_parameters(writer, node) if is_quantised_layer(node) else _float_parameters(writer, node)
    if node.op is Op.LINEAR:
        writer.add("Gemm", node.name, [source, *parameters], node.name, transB=1)
    else:
        attributes = {**_window(node), "dilations": node.dilation, "group": node.groups}
        writer.add("Conv", node.name, [source, *parameters], node.name, **attributes)


def _float_parameters(writer: _Writer, node: Node) -> list[str]:
    name = f"{node.name}.weight"
    names = [writer.constant(name, quantised_weight(writer.weights[name], node.precision))]
    return [*names, writer.constant(f"{node.name}.bias", writer.weights[f"{node.name}.bias"])] if node.bias else names


def _integer_parameters(writer: _Writer, node: Node) -> list[str]:
    name = f"{node.name}.weight"
    weight, scale = quantise_weight(writer.weights[name], node.precision.weight_bits)
    names = [_dequantised_constant(writer, name, weight, scale)]
    if node.bias:
        input_scale = writer.grid(node.inputs[0]).scale
        bias, bias_scale = quantise_bias(writer.weights[f"{node.name}.bias"], input_scale, scale)
        names.append(_dequantised_constant(writer, f"{node.name}.bias", bias, bias_scale))
    return names


def _dequantised_constant(writer: _Writer, name: str, integers: np.ndarray, scale: np.ndarray) -> str:
    inputs = [
        writer.constant(name, integers),
        writer.constant(f"{name}/scale", scale),
        writer.constant(f"{name}/zero_point", np.zeros(len(scale), integers.dtype)),
    ]
    writer.add("DequantizeLinear", f"{name}/dequantised", inputs, f"{name}/dequantised", axis=0)
    return f"{name}/dequantised"


def _window(node: Node) -> dict[str, tuple[int, ...]]:
    return {"kernel_shape": node.kernel, "strides": node.stride, "pads": node.padding}


def _write_input(writer: _Writer, node: Node) -> None:
    """The graph's input is declared, not computed."""


def _write_batch_norm(writer: _Writer, node: Node) -> None:
    parts = ("weight", "bias", "running_mean", "running_var")
    parameters = [writer.constant(f"{node.name}.{part}", writer.weights[f"{node.name}.{part}"]) for part in parts]
    source = writer.read(node.name, node.inputs[0])
    writer.add("BatchNormalization", node.name, [source, *parameters], node.name, epsilon=BATCH_NORM_EPSILON)


def _write_relu6(writer: _Writer, node: Node) -> None:
    source = writer.read(node.name, node.inputs[0])
    if node.name in writer.plan.integer_tensors and writer.grid(node.name).is_clipped_to(6.0):
        # Its container reaches beyond 6, so that a clip to 6 would stay, and its layer would not fuse.
        writer.add("Relu", node.name, [source], node.name)
        return
    bounds = [writer.constant(f"float/{value}", np.array(value, np.float32)) for value in (0, 6)]
    writer.add("Clip", node.name, [source, *bounds], node.name)


def _write_hard_sigmoid(writer: _Writer, node: Node) -> None:
    source = writer.read(node.name, node.inputs[0])
    writer.add("HardSigmoid", node.name, [source], node.name, alpha=1 / 6, beta=0.5)


def _write_swish(writer: _Writer, node: Node) -> None:
    source, gate = writer.read(node.name, node.inputs[0]), f"{node.name}/gate"
    writer.add("Sigmoid", gate, [source], gate)
    writer.add("Mul", node.name, [source, gate], node.name)


def _write_slice(writer: _Writer, node: Node) -> None:
    assert node.channels is not None, "a slice has as many channels as it says"
    bounds = {"start": node.start, "end": node.start + node.channels, "axis": 1}
    constants = [writer.constant(f"{node.name}/{part}", np.array([value], np.int64)) for part, value in bounds.items()]
    writer.add("Slice", node.name, [writer.read(node.name, node.inputs[0]), *constants], node.name)


def _write_pad(writer: _Writer, node: Node) -> None:
    top, left, bottom, right = node.padding
    pads = writer.constant(f"{node.name}/pads", np.array([0, 0, top, left, 0, 0, bottom, right], np.int64))
    source = node.inputs[0]
    if writer.plan.root[source] not in writer.plan.integer_tensors:
        writer.add("Pad", node.name, [writer.read(node.name, source), pads], node.name)
        return
    # Between Q and DQ it would not fuse: floats would be padded.
    writer.integers[node.name] = f"{node.name}/quantised"
    inputs = [writer.read_integers(source), pads, writer.zero_point(source)]
    writer.add("Pad", node.name, inputs, writer.integers[node.name])


def _write_shuffle(writer: _Writer, node: Node) -> None:
    """Channels (g, C/g) to (C/g, g); a 0 in a shape means the size that is there, so any batch works."""
    channels, height, width = writer.shapes[node.name]
    split = np.array([0, node.groups, channels // node.groups, height, width], np.int64)
    whole = np.array([0, channels, height, width], np.int64)
    name, source = node.name, writer.read(node.name, node.inputs[0])
    writer.add("Reshape", f"{name}/split", [source, writer.constant(f"{name}/split_shape", split)], f"{name}/split")
    writer.add("Transpose", f"{name}/permuted", [f"{name}/split"], f"{name}/permuted", perm=(0, 2, 1, 3, 4))
    writer.add("Reshape", name, [f"{name}/permuted", writer.constant(f"{name}/shape", whole)], name)


def _write_opaque(writer: _Writer, node: Node) -> None:
    """The nodes of the body, every name of theirs made the node's own."""
    body = decode_body(node.body)
    names = {opaque_input(index): writer.read(node.name, source) for index, source in enumerate(node.inputs)}
    names[OPAQUE_OUTPUT] = node.name
    for constant in body.initializer:
        names[constant.name] = f"{node.name}/{constant.name}"
        writer.graph.initializer.add().CopyFrom(constant)
        writer.graph.initializer[-1].name = names[constant.name]
    for number, inner in enumerate(body.node):
        copy = writer.graph.node.add()
        copy.CopyFrom(inner)
        copy.name = f"{node.name}/{number}"
        for tensors in (copy.input, copy.output):
            tensors[:] = [name and names.setdefault(name, f"{node.name}/{name}") for name in tensors]


def _write_plain(op_type: str, **attributes: Any) -> Callable[[_Writer, Node], None]:
    def write(writer: _Writer, node: Node) -> None:
        writer.add(op_type, node.name, [writer.read(node.name, name) for name in node.inputs], node.name, **attributes)

    return write


def _write_add(writer: _Writer, node: Node) -> None:
    sources = [writer.read(node.name, name) for name in node.inputs]
    writer.add("Add" if len(sources) == 2 else "Sum", node.name, sources, node.name)


def _write_pool(op_type: str) -> Callable[[_Writer, Node], None]:
    def write(writer: _Writer, node: Node) -> None:
        writer.add(op_type, node.name, [writer.read(node.name, node.inputs[0])], node.name, **_window(node))

    return write


_WRITE: dict[Op, Callable[[_Writer, Node], None]] = {
    Op.INPUT: _write_input,
    Op.CONV: _write_layer,
    Op.LINEAR: _write_layer,
    Op.BATCH_NORM: _write_batch_norm,
    Op.RELU: _write_plain("Relu"),
    Op.RELU6: _write_relu6,
    Op.SIGMOID: _write_plain("Sigmoid"),
    Op.HARD_SIGMOID: _write_hard_sigmoid,
    Op.SWISH: _write_swish,
    Op.HARD_SWISH: _write_plain("HardSwish"),
    Op.ADD: _write_add,
    Op.MULTIPLY: _write_plain("Mul"),
    Op.CONCAT: _write_plain("Concat", axis=1),
    Op.SLICE: _write_slice,
    Op.SHUFFLE: _write_shuffle,
    Op.PAD: _write_pad,
    Op.MAX_POOL: _write_pool("MaxPool"),
    Op.AVERAGE_POOL: _write_pool("AveragePool"),
    Op.GLOBAL_AVERAGE_POOL: _write_plain("GlobalAveragePool"),
    Op.FLATTEN: _write_plain("Flatten", axis=1),
    Op.POINTWISE: _write_opaque,
    Op.OPAQUE: _write_opaque,
}
