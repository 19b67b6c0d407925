"""Keeping a node that a Network has no operator for: as it is, with the channels around it fixed.

It can be kept when it works on each image alone. That is tried: two images at once must give what each gives alone.
A function of one value at a time fixes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx
from onnx import version_converter

from search_spaces.network import Op, Shape
from workers.importing.draft import UnsupportedError, check_size, declare, rearrange, restore
from workers.importing.elementwise import POINTWISE
from workers.importing.site import Site
from workers.importing.views import View
from workers.onnx_session import open_session
from workers.opaque import IR_VERSION, OPSET, OUTPUT, encode_body, input_name

MOST_CONSTANT_BYTES = 4 * 2**20
"""Of one opaque node: they are stored with the network's description."""

_NEVER = frozenset(
    {
        *("If", "Loop", "Scan", "SequenceMap", "RandomNormal", "RandomNormalLike", "RandomUniform"),
        *("RandomUniformLike", "Multinomial", "Bernoulli", "NonZero", "Unique", "QuantizeLinear", "DequantizeLinear"),
        *("DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"),
    }
)
_TOLERANCE = 1e-4


def keep_as_it_is(site: Site, node: onnx.NodeProto) -> View:
    """The node as an opaque one, or a pointwise one.

    Raises:
        UnsupportedError: it cannot be kept.
    """
    check_kind(node)
    views = [value for value in site.inputs if isinstance(value, View)]
    if any(view.lead for view in views):
        raise UnsupportedError("mixes the images of a batch, and cannot be kept as it is")
    if _is_pointwise(site):
        plain = replace(site, inputs=[site.draft.plain(views[0].source), *site.inputs[1:]])
        graph, _ = _checked_body(plain, node)
        return views[0].of(site.draft.add(site.name, Op.POINTWISE, views[0].source, body=encode_body(graph)))
    graph, shape = _checked_body(site, node)
    like = next((view for view in views if view.shape == shape), None)
    if like is not None and like.groups != site.draft.plain(like.source).groups:
        shape = site.draft.shapes[like.source]
        _put_back(graph, like, shape)
    sources = [view.source for view in views]
    size = sum(onnx.numpy_helper.to_array(constant).nbytes for constant in graph.initializer)
    name = site.draft.add(site.name, Op.OPAQUE, *sources, shape=shape, body=encode_body(graph), body_bytes=size)
    return site.draft.plain(name) if like is None else like.of(name)


def _put_back(graph: onnx.GraphProto, view: View, shape: Shape) -> None:
    """Have a body put its output into the order of the tensor that a view is of.

    So what a norm over the last axis makes of channels-last maps is a map again, which layers behind it can read.
    """
    made = f"{OUTPUT}.made"
    for node in graph.node:
        node.output[:] = [made if name == OUTPUT else name for name in node.output]
    restore(graph, view, shape, made, OUTPUT)


def _is_pointwise(site: Site) -> bool:
    constants = site.inputs[1:]
    are_scalars = all(value is None or (isinstance(value, np.ndarray) and value.size == 1) for value in constants)
    return site.op_type in POINTWISE and isinstance(site.inputs[0], View) and are_scalars


def _checked_body(site: Site, node: onnx.NodeProto) -> tuple[onnx.GraphProto, Shape]:
    """The node's body and what it makes of an image."""
    body = _make_body(site, node)
    shapes = [site.draft.shapes[value.source] for value in site.inputs if isinstance(value, View)]
    try:
        graph = _in_our_opset(body, site.opset)
        return graph, _try_out(graph, shapes)
    except UnsupportedError:
        raise
    except Exception:  # whatever the converter or the runtime says of it
        raise UnsupportedError("cannot be kept as it is: it does not run for any number of images") from None


def check_kind(node: onnx.NodeProto) -> None:
    """Whether a node is of a kind that a body may hold. Raises `UnsupportedError`."""
    if node.domain not in ("", "ai.onnx"):
        raise UnsupportedError(f"comes from {node.domain!r}; export with the plain ONNX operators")
    if node.op_type in _NEVER or any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
        raise UnsupportedError("has branches, randomness or integers of its own, and cannot be kept as it is")
    if sum(bool(name) for name in node.output) != 1:
        raise UnsupportedError("has several outputs, and cannot be kept as it is")


def _make_body(site: Site, node: onnx.NodeProto) -> onnx.GraphProto:
    """The node between tensors as the network has them, its constants inside."""
    body = onnx.GraphProto(name=site.name)
    inner = body.node.add()
    inner.CopyFrom(node)
    inner.name = ""
    inner.output[:] = [OUTPUT if name else "" for name in node.output]
    before: list[onnx.NodeProto] = []
    views = 0
    for index, value in enumerate(site.inputs):
        if value is None:
            continue
        if isinstance(value, View):
            inner.input[index] = _feed(site, body, before, value, input_name(views))
            views += 1
        else:
            inner.input[index] = f"c{index}"
            body.initializer.append(onnx.numpy_helper.from_array(_any_batch(site, index, value), f"c{index}"))
    ordered = [*before, *body.node]
    del body.node[:]
    body.node.extend(ordered)
    if sum(constant.ByteSize() for constant in body.initializer) > MOST_CONSTANT_BYTES:
        raise UnsupportedError(f"its constants have more than {MOST_CONSTANT_BYTES:,} bytes")
    body.output.append(onnx.helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, None))
    return body


def _feed(site: Site, body: onnx.GraphProto, before: list[onnx.NodeProto], view: View, name: str) -> str:
    """Declare an input of the body; returns the name of the tensor as the node reads it."""
    declare(body.input, name, site.draft.shapes[view.source])
    if view.groups == site.draft.plain(view.source).groups:
        return name
    arranging = onnx.GraphProto()
    rearrange(arranging, view, name, f"{name}.arranged")
    before.extend(arranging.node)
    body.initializer.extend(arranging.initializer)
    return f"{name}.arranged"


def _any_batch(site: Site, index: int, constant: np.ndarray) -> np.ndarray:
    """A shape that begins with the one image of an export, for any number of them."""
    is_shape = site.op_type == "Reshape" and index == 1 and not site.attribute("allowzero", 0)
    if is_shape and constant.size and constant[0] == 1:
        return np.concatenate([[0], constant[1:]]).astype(np.int64)
    return constant


def _in_our_opset(body: onnx.GraphProto, opset: int) -> onnx.GraphProto:
    """The same in the opset that files are written in."""
    if opset == OPSET:
        return body
    model = onnx.ModelProto(graph=body, ir_version=IR_VERSION)
    model.opset_import.add(domain="", version=opset)
    graph: onnx.GraphProto = version_converter.convert_version(model, OPSET).graph
    return graph


def _try_out(graph: onnx.GraphProto, shapes: Sequence[Shape]) -> Shape:
    """The output's shape without the batch, from two images at once and each alone."""
    model = onnx.ModelProto(graph=graph, ir_version=IR_VERSION)
    model.opset_import.add(domain="", version=OPSET)
    _check_output_size(model)
    session = open_session(model.SerializeToString())
    generator = np.random.default_rng(0)
    feeds = {
        input_name(index): generator.standard_normal((2, *shape)).astype(np.float32)
        for index, shape in enumerate(shapes)
    }
    (both,) = session.run([OUTPUT], feeds)
    alone = [
        session.run([OUTPUT], {name: value[image : image + 1] for name, value in feeds.items()})[0]
        for image in range(2)
    ]
    is_right = isinstance(both, np.ndarray) and both.dtype == np.float32 and both.ndim > 1 and len(both) == 2
    if not is_right or any(result.shape != (1, *both.shape[1:]) for result in alone):
        raise UnsupportedError("does not give one float tensor for each image, and cannot be kept as it is")
    if not np.allclose(both, np.concatenate(alone), rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True):
        raise UnsupportedError("mixes the images of a batch, and cannot be kept as it is")
    return tuple(int(size) for size in both.shape[1:])


def _check_output_size(model: onnx.ModelProto) -> None:
    """Before anything is computed: a few bytes can ask for gigabytes."""
    one = onnx.ModelProto.FromString(model.SerializeToString())
    for value in one.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    inferred = onnx.shape_inference.infer_shapes(one, data_prop=True, strict_mode=True).graph.output[0]
    dims = inferred.type.tensor_type.shape.dim
    if not dims or any(not dim.HasField("dim_value") for dim in dims):
        raise UnsupportedError("makes a tensor whose size cannot be told, and cannot be kept as it is")
    check_size([dim.dim_value for dim in dims])
