"""From bytes that may be anything to an ONNX graph of one input and one output whose sizes are all known.

Nothing is believed before it was checked: not what a tensor says of its size, not where it says its data are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

import numpy as np
import onnx
import onnx.inliner
from google.protobuf.message import DecodeError

from workers.importing.faults import ImportFault, ImportRefusedError, refuse
from workers.importing.tensors import ExternalData, read_constants, type_name
from workers.importing.wire import check_wire

OLDEST_OPSET = 11
MOST_INPUT_VALUES = 3 * 2048 * 2048
MOST_NODES = 20_000


@dataclass(frozen=True)
class Source:
    """A checked file.

    Attributes:
        nodes: in an order in which they can be computed.
        constants: arrays by name; views of the file's bytes where that can be.
        input_name, input_shape: without the batch, as the file has it.
        is_channels_last: whether the input is (height, width, channels).
        any_batch: whether the batch is open.
        output_name: of the one output.
    """

    name: str
    nodes: Sequence[onnx.NodeProto]
    constants: dict[str, np.ndarray]
    input_name: str
    input_shape: tuple[int, int, int]
    is_channels_last: bool
    any_batch: bool
    output_name: str
    opset: int
    producer: str


def read_onnx(data: bytes, external: ExternalData, input_shape: tuple[int, int, int] | None) -> Source:
    """Read and check a model.

    Args:
        data: the file.
        external: files with data that the model refers to.
        input_shape: (channels, height, width), for a model that leaves them open.

    Raises:
        ImportRefusedError: with every reason that is found.
    """
    check_wire(data)
    model = _parse(data)
    opset = _opset_of(model)
    graph = _inlined(model).graph
    if len(graph.node) > MOST_NODES:
        raise refuse(f"the graph has {len(graph.node):,} nodes; {MOST_NODES:,} are the most")
    constants = read_constants(graph, external)
    value = _only_input(graph, constants)
    shape, is_channels_last, any_batch = _input_shape(value, input_shape)
    if len(graph.output) != 1:
        names = ", ".join(output.name for output in graph.output)
        raise refuse(f"the network has {len(graph.output)} outputs ({names}); export it with the one that is scored")
    return Source(
        name=graph.name or "imported",
        nodes=[_alone(node) for node in _in_order(graph, {value.name, *constants})],
        constants=constants,
        input_name=value.name,
        input_shape=shape,
        is_channels_last=is_channels_last,
        any_batch=any_batch,
        output_name=graph.output[0].name,
        opset=opset,
        producer=f"{model.producer_name} {model.producer_version}".strip(),
    )


def _parse(data: bytes) -> onnx.ModelProto:
    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except DecodeError:
        model = onnx.ModelProto()
    if not model.graph.node:
        raise refuse("this is no whole ONNX file with a graph in it; export or download it again")
    return model


def _opset_of(model: onnx.ModelProto) -> int:
    versions = {entry.domain: entry.version for entry in model.opset_import}
    opset: int = versions.get("", versions.get("ai.onnx", 0))
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise refuse(f"the file is of opset {opset}; export it again with one from {OLDEST_OPSET} to {newest}")
    return opset


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """The functions that a model brings itself, put where they are called."""
    if not model.functions:
        return model
    try:
        inlined: onnx.ModelProto = onnx.inliner.inline_local_functions(model)
    except Exception as error:  # the inliner raises whatever its C++ part says
        raise refuse(f"its functions cannot be put in place: {' '.join(str(error).split())[:200]}") from None
    return inlined


def _only_input(graph: onnx.GraphProto, constants: Mapping[str, np.ndarray]) -> onnx.ValueInfoProto:
    values = [value for value in graph.input if value.name not in constants]
    if len(values) != 1:
        names = ", ".join(value.name for value in values) or "none"
        raise refuse(f"the network has {len(values)} inputs ({names}); one that takes an image is needed")
    kind = values[0].type.tensor_type.elem_type
    if kind != onnx.TensorProto.FLOAT:
        remedy = "export it with a float32 input, after scaling and normalising"
        raise refuse(f"takes {type_name(kind)} values; {remedy}", f"input {values[0].name}")
    value: onnx.ValueInfoProto = values[0]
    return value


def _input_shape(
    value: onnx.ValueInfoProto, given: tuple[int, int, int] | None
) -> tuple[tuple[int, int, int], bool, bool]:
    """(shape as the file has it, whether channels are last, whether the batch is open)."""
    part = f"input {value.name}"
    dims = value.type.tensor_type.shape.dim
    if len(dims) != 4:
        raise refuse(f"has {len(dims)} axes; an image has four: batch, channels, height and width", part)
    sizes = [dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else 0 for dim in dims]
    if sizes[0] > 1:
        raise refuse(f"takes {sizes[0]} images at once; export it for one, or for any number", part)
    is_channels_last = sizes[3] in (1, 3) and sizes[1] not in (1, 3)
    if given is not None:
        fitting = [wanted for wanted in (given, (*given[1:], given[0])) if _can_be(sizes[1:], wanted)]
        if not fitting:
            raise refuse(f"is {sizes[1:]} in the file (0 is open), and cannot be {list(given)}", part)
        sizes[1:], is_channels_last = fitting[0], fitting[0] != given
    if not all(sizes[1:]):
        raise refuse("leaves its height, width or channels open; say which input it takes, such as 3,224,224", part)
    if math.prod(sizes[1:]) > MOST_INPUT_VALUES:
        raise refuse(f"takes {math.prod(sizes[1:]):,} values; {MOST_INPUT_VALUES:,} are the most", part)
    return (sizes[1], sizes[2], sizes[3]), is_channels_last, sizes[0] == 0


def _can_be(sizes: Sequence[int], wanted: Sequence[int]) -> bool:
    return all(size in (0, want) for size, want in zip(sizes, wanted, strict=True))


def _in_order(graph: onnx.GraphProto, known: set[str]) -> list[onnx.NodeProto]:
    """Nodes so that each comes after what it reads; what nothing makes, and circles, are named."""
    maker: dict[str, int] = {}
    faults: list[ImportFault] = []
    for place, node in enumerate(graph.node):
        for name in filter(None, node.output):
            if name in maker or name in known:
                faults.append(ImportFault(_part(node), f"makes {name!r}, which is there already; the file is damaged"))
            maker[name] = place
    for node in graph.node:
        for name in filter(None, node.input):
            if name not in maker and name not in known:
                faults.append(ImportFault(_part(node), f"reads {name!r}, which nothing makes; the file is damaged"))
    if graph.output[0].name not in maker:
        faults.append(ImportFault(f"output {graph.output[0].name}", "is made by no node; the file is damaged"))
    if faults:
        raise ImportRefusedError(faults)
    needs = [{maker[name] for name in node.input if name in maker} for node in graph.node]
    if all(place > max(before, default=-1) for place, before in enumerate(needs)):
        return list(graph.node)
    try:
        return [graph.node[place] for place in TopologicalSorter(dict(enumerate(needs))).static_order()]
    except CycleError as error:
        names = " -> ".join(_part(graph.node[place]) for place in error.args[1][:5])
        raise refuse(f"nodes wait for each other in a circle; the file is damaged: {names}") from None


def _alone(node: onnx.NodeProto) -> onnx.NodeProto:
    """A copy that does not keep the whole file in memory."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


def _part(node: onnx.NodeProto) -> str:
    return f"node {node.name or node.op_type}"
