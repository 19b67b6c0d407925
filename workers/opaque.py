"""Opaque and pointwise nodes: parts of an imported network that Espalier keeps as they are and does not look into.

What one computes is an ONNX graph, stored as text in `Node.body`: inputs `x0`, `x1` ..., output `y`, constants inside,
any batch. ONNX Runtime computes it wherever torch would, so no gradient passes, and what lies before it cannot be
trained; but for the usual activation functions, which torch knows too.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import onnx
import onnxruntime
import torch
import torch.nn.functional as F  # noqa: N812  # everybody calls it F
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
    function = _torch_function(body)
    if function is not None:
        return function(inputs[0])
    result: Tensor = _Opaque.apply(body, *inputs)  # type: ignore[no-untyped-call]
    return result


def is_differentiable(body: str) -> bool:
    """Whether gradients pass what a body computes."""
    return _torch_function(body) is not None


@lru_cache(maxsize=64)
def _torch_function(body: str) -> Callable[[Tensor], Tensor] | None:
    """The same in torch, for a body of one node that torch has a differentiable function for."""
    graph = decode_body(body)
    if len(graph.node) != 1 or graph.node[0].op_type not in _IN_TORCH:
        return None
    attributes = {attribute.name: attribute.f for attribute in graph.node[0].attribute}
    return partial(_IN_TORCH[graph.node[0].op_type], **attributes)


_IN_TORCH: dict[str, Callable[..., Tensor]] = {
    "LeakyRelu": lambda x, alpha=0.01: F.leaky_relu(x, alpha),
    "Elu": lambda x, alpha=1.0: F.elu(x, alpha),
    "Softplus": lambda x: F.softplus(x, threshold=1e9),
    "Tanh": torch.tanh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Sqrt": torch.sqrt,
    "Abs": torch.abs,
    "Neg": torch.neg,
    "Log": torch.log,
    "Reciprocal": torch.reciprocal,
    "Sin": torch.sin,
    "Softsign": F.softsign,
    "Celu": lambda x, alpha=1.0: F.celu(x, alpha),
    "Selu": lambda x, alpha=1.67326319217681884765625, gamma=1.05070102214813232421875: gamma * F.elu(x, alpha),
}
"""By ONNX's name; attributes by ONNX's names and with its defaults."""


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
        feeds = {input_name(index): value.detach().float().contiguous().numpy() for index, value in enumerate(inputs)}
        (result,) = _session(body).run([OUTPUT], feeds)
        return torch.from_numpy(result).to(inputs[0].dtype)

    @staticmethod
    def backward(context: Any, *_gradients: Tensor) -> tuple[None, ...]:
        nothing: tuple[None, ...] = (None,) * (1 + context.inputs)
        return nothing
