"""Constant parts of an imported file, computed once: mostly shapes, and weights that are stored in another order.

What may be computed is listed, and how large it may become is bounded, before anything is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from workers.importing.draft import UnsupportedError

LARGEST_COMPUTED = 65_536
"""Values of a constant that is computed from others, where it can be larger than those."""

_SAME_SIZE = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""Give back the values that they were given, in whatever form: of any size."""

_BOUNDED = frozenset(
    {
        *("Abs", "Add", "And", "Ceil", "Clip", "Concat", "Cos", "CumSum", "Div", "Equal", "Erf"),
        *("Exp", "Floor", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Log", "Max", "Min", "Mod", "Mul", "Neg"),
        *("Not", "Or", "Pow", "Reciprocal", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "Round"),
        *("Shape", "Sign", "Sin", "Size", "Slice", "Split", "Sqrt", "Sub", "Where"),
    }
)
_GROWING = frozenset({"ConstantOfShape", "Expand", "Gather", "Range", "Tile"})
"""What they make can be much larger than their inputs; how large is told before."""


def can_fold(op_type: str) -> bool:
    """Whether a node with constant inputs alone may be computed here."""
    return op_type in _SAME_SIZE | _BOUNDED | _GROWING


def fold(node: onnx.NodeProto, inputs: Sequence[np.ndarray | None], opset: int) -> list[np.ndarray]:
    """What a node makes of constants.

    Raises:
        UnsupportedError: it would become too large, or cannot be computed.
    """
    if node.op_type not in _SAME_SIZE:
        _check_size(node, [value for value in inputs if value is not None])
    feeds = {name: value for name, value in zip(node.input, inputs, strict=True) if name and value is not None}
    try:
        results = _evaluate(node, feeds, opset)
    except Exception as error:  # the reference raises whatever numpy raises
        raise UnsupportedError(f"cannot be computed: {error}") from None
    return [np.asarray(result) for result in results]


def _evaluate(node: onnx.NodeProto, feeds: dict[str, np.ndarray], opset: int) -> list[Any]:
    outputs = [name for name in node.output if name]
    graph = onnx.GraphProto(name="constant", node=[node])
    for name, value in feeds.items():
        kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        graph.input.append(onnx.helper.make_tensor_value_info(name, kind, value.shape))
    for name in outputs:
        graph.output.append(onnx.ValueInfoProto(name=name))
    model = onnx.ModelProto(graph=graph, ir_version=8)
    model.opset_import.add(domain="", version=opset)
    return list(ReferenceEvaluator(model).run(outputs, feeds))


def _check_size(node: onnx.NodeProto, inputs: Sequence[np.ndarray]) -> None:
    """What is made must be small, or no larger than what there is already."""
    if node.op_type in _GROWING:
        size = _size_told(node.op_type, inputs)
    else:
        size = max(sum(value.size for value in inputs), _broadcast_size([value.shape for value in inputs]))
    most = max(LARGEST_COMPUTED, *(value.size for value in inputs), sum(value.size for value in inputs))
    if size > most:
        raise UnsupportedError(f"would make a constant of {size:,.0f} values; {most:,} are the most")


def _broadcast_size(shapes: Sequence[tuple[int, ...]]) -> float:
    """Values of the shape that all of them can be broadcast to, if they can."""
    rank = max((len(shape) for shape in shapes), default=0)
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return float(np.prod([max(sides) for sides in zip(*padded, strict=True)], dtype=float)) if padded else 0.0


def _size_told(op_type: str, inputs: Sequence[np.ndarray]) -> float:
    if op_type == "Gather":
        return float(inputs[0].size) * inputs[1].size
    numbers = [np.asarray(value, dtype=float) for value in inputs]
    match op_type:
        case "ConstantOfShape":
            return float(np.prod(numbers[0]))
        case "Expand":
            return float(np.prod(np.maximum(numbers[1], 1))) * inputs[0].size
        case "Range":
            start, limit, step = (float(value.reshape(-1)[0]) for value in numbers)
            return abs((limit - start) / step) if step else float("inf")
        case _:  # Tile
            return inputs[0].size * float(np.prod(np.maximum(numbers[1], 1)))
