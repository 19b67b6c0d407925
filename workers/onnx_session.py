"""ONNX Runtime sessions, and the proof that a layer executes in the precision that its network declares.

What a file says and what a runtime executes differ: integers that do not fuse are computed in floating point,
and float layers between integer ones are silently made integer. So the optimised graph is looked at.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnxruntime

from search_spaces.costs import fused_operators
from search_spaces.network import COMPUTE_OPS, Network, Node
from search_spaces.quantisation import is_quantised_layer

_INTEGER_OPERATORS = frozenset({"QLinearConv", "QGemm", "QLinearMatMul", "ConvInteger", "MatMulInteger"})
_FLOAT_OPERATORS = frozenset({"Conv", "FusedConv", "NhwcFusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"})
COMPUTE_OPERATORS = _INTEGER_OPERATORS | _FLOAT_OPERATORS
"""What a conv or linear is executed by."""

_REWRITTEN = re.compile(r"(?:fused )?(?P<name>.+?)(?:_nchwc|_nhwc|_pre_q|_token_\d+)*")
_FATAL_ONLY = 4  # errors are raised


class PrecisionMismatch(RuntimeError):  # noqa: N818 (the word of the glossary)
    """Layers execute in another precision than declared.

    Attributes:
        layers: layer name to what is declared and what it executes as.
    """

    def __init__(self, layers: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {what}" for name, what in layers.items()))
        self.layers = dict(layers)


def open_session(model: bytes, threads: int = 1) -> onnxruntime.InferenceSession:
    """A session on the CPU with everything optimised that ONNX Runtime can."""
    return _open(model, _options(threads))


def open_lean_session(path: Path) -> onnxruntime.InferenceSession:
    """A session of a file, which may have its data beside it; for a few runs, so that it takes little memory.

    Nothing is optimised: that makes further copies of the weights, and the file is to be computed as it stands.
    """
    options = _options(threads=1)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.disable_prepacking", "1")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def open_plain_session(model: bytes, threads: int = 1) -> onnxruntime.InferenceSession:
    """A session that computes a file as it is written: nothing optimised, and so nothing fused or made integer."""
    options = _options(threads)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return _open(model, options)


def optimise(model: bytes) -> onnx.ModelProto:
    """The graph that ONNX Runtime executes."""
    with tempfile.TemporaryDirectory(prefix="espalier-") as folder:
        path = Path(folder) / "optimised.onnx"
        options = _options(threads=1)
        options.optimized_model_filepath = str(path)
        _open(model, options)
        optimised: onnx.ModelProto = onnx.ModelProto.FromString(path.read_bytes())
        return optimised


def check_executed(network: Network, model: bytes) -> dict[str, str]:
    """Compare what ONNX Runtime executes with what the folded network declares.

    Returns:
        Layer name to the operator that executes it, such as `QLinearConv`.

    Raises:
        PrecisionMismatch: naming every layer that differs.
    """
    executed = executed_operators(network, optimise(model))
    _compare(network, executed)
    return executed


def executed_operators(network: Network, optimised: onnx.ModelProto) -> dict[str, str]:
    """Layer name to operator, read from an optimised graph; a layer that is not found is left out."""
    return {name: node.op_type for name, node in executed_nodes(network, optimised).items()}


def executed_nodes(network: Network, optimised: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """Layer name to what executes it. An optimised node is named after the layer, or after what was fused into it."""
    layer_of = {
        node.name: operator.nodes[0].name
        for operator in fused_operators(network)
        if operator.nodes[0].op in COMPUTE_OPS
        for node in operator.nodes
    }
    executed: dict[str, onnx.NodeProto] = {}
    for node in optimised.graph.node:
        match = _REWRITTEN.fullmatch(node.name)
        name = layer_of.get(node.name) or layer_of.get(match["name"] if match else "")
        if name is not None and node.op_type in COMPUTE_OPERATORS:
            executed[name] = node
    return executed


def _compare(network: Network, executed: Mapping[str, str]) -> None:
    wrong = {
        layer.name: f"declared {layer.precision}, executes as {executed.get(layer.name, 'nothing found')}"
        for layer in network.compute_nodes()
        if not _is_as_declared(layer, executed.get(layer.name, ""))
    }
    if wrong:
        raise PrecisionMismatch(wrong)


def _is_as_declared(layer: Node, operator: str) -> bool:
    return operator in (_INTEGER_OPERATORS if is_quantised_layer(layer) else _FLOAT_OPERATORS)


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    # Threads that spin while they wait take the core from training and from other searches.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _open(model: bytes, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
