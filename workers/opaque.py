"""Opaque nodes: parts of an imported network that Espalier keeps as they are and does not look into.

What one computes is an ONNX graph, stored as text in `Node.body`: inputs `x0`, `x1` ..., output `y`, constants inside,
any batch. ONNX Runtime computes it wherever torch would, so no gradient passes: what lies before an opaque
node cannot be trained.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import onnx
import onnxruntime
import torch
from torch import Tensor

from workers.onnx_session import open_session

OPSET = 17
IR_VERSION = 8
OUTPUT = "y"


def encode_body(graph: onnx.GraphProto) -> str:
    """Text of a graph as the module describes it."""
    return base64.b64encode(zlib.compress(graph.SerializeToString(deterministic=True))).decode("ascii")


@lru_cache(maxsize=64)
def decode_body(body: str) -> onnx.GraphProto:
    """Inverse of `encode_body`, for what Espalier itself has written. Shared: not to be changed."""
    graph: onnx.GraphProto = onnx.GraphProto.FromString(zlib.decompress(base64.b64decode(body)))
    return graph


def input_name(index: int) -> str:
    return f"x{index}"


def compute(body: str, inputs: Sequence[Tensor]) -> Tensor:
    """The output for float32 inputs of any batch."""
    result: Tensor = _Opaque.apply(body, *inputs)  # type: ignore[no-untyped-call]
    return result


@lru_cache(maxsize=64)
def _session(body: str) -> onnxruntime.InferenceSession:
    model = onnx.ModelProto(ir_version=IR_VERSION, graph=decode_body(body))
    model.opset_import.add(domain="", version=OPSET)
    return open_session(model.SerializeToString(), threads=torch.get_num_threads())


class _Opaque(torch.autograd.Function):
    """A function that torch cannot differentiate."""

    @staticmethod
    def forward(context: Any, body: str, *inputs: Tensor) -> Tensor:
        context.inputs = len(inputs)
        feeds = {input_name(index): value.detach().contiguous().numpy() for index, value in enumerate(inputs)}
        (result,) = _session(body).run([OUTPUT], feeds)
        return torch.from_numpy(result)

    @staticmethod
    def backward(context: Any, *_gradients: Tensor) -> tuple[None, ...]:
        nothing: tuple[None, ...] = (None,) * (1 + context.inputs)
        return nothing
