"""Which tensors of a Network are 8-bit in the file, and the numbers they are stored by.

Pure data and numpy: it knows neither ONNX's protobuf nor a runtime, but it is shaped by what ONNX Runtime
fuses. The rules, in the words of the field:

- Activation bits belong to a tensor: a layer's activation bits mean its input. Readers that disagree take
  the higher bits.
- A quantised layer's output is quantised too (after the relu that follows it), or nothing would fuse.
- An addition, product, concatenation or average whose inputs are all quantised has a quantised output.
- Flatten, shuffle, slice, pad and max pool make no new value but zero, so they share their input's numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from search_spaces.network import COMPUTE_OPS, InputContract, Network, Node, Op

TensorRange = tuple[float, float]

CONTAINER_BITS = 8
"""Fewer bits are stored as grid values in 8-bit containers: ONNX Runtime's smaller types do not fuse."""

_VALUE_PRESERVING = frozenset({Op.FLATTEN, Op.SHUFFLE, Op.SLICE, Op.PAD, Op.MAX_POOL})
_RELUS = frozenset({Op.RELU, Op.RELU6})
_INTEGER_CAPABLE = frozenset({Op.ADD, Op.MULTIPLY, Op.CONCAT, Op.GLOBAL_AVERAGE_POOL, Op.AVERAGE_POOL})


def is_quantised(node: Node) -> bool:
    """Whether a layer computes in integers.

    Raises:
        ValueError: its precision is neither fp32 nor 2 to 8 bits on both sides.
    """
    if node.op not in COMPUTE_OPS or node.precision.is_float:
        return False
    bits = (node.precision.weight_bits, node.precision.activation_bits)
    if min(bits) < 2 or max(bits) > CONTAINER_BITS:
        raise ValueError(f"layer {node.name!r}: {node.precision} cannot be written; 2 to 8 bits on both sides can")
    return True


@dataclass(frozen=True)
class QuantisationPlan:
    """Where a file has quantised tensors.

    Attributes:
        bits: bits of each quantised root tensor.
        root: for every tensor the tensor whose values it shares; itself but for value-preserving operators.
        integer_nodes: nodes that compute in integers, and so read quantised tensors.
        integer_tensors: roots that exist in integers only, whoever reads them.
    """

    bits: Mapping[str, int]
    root: Mapping[str, str]
    integer_nodes: frozenset[str]
    integer_tensors: frozenset[str]

    def reads_quantised(self, reader: str, tensor: str) -> bool:
        """Whether `reader` is fed the quantised form of `tensor`."""
        root = self.root[tensor]
        return root in self.integer_tensors or (root in self.bits and reader in self.integer_nodes)


def plan_quantisation(network: Network) -> QuantisationPlan:
    """Decide which tensors of a folded network are quantised, and to how many bits."""
    root = _value_roots(network)
    layers = [node for node in network.nodes if is_quantised(node)]
    bits: dict[str, int] = {}
    for layer in layers:
        source = root[layer.inputs[0]]
        bits[source] = max(bits.get(source, 0), layer.precision.activation_bits)
    integer_nodes, integer_tensors = {layer.name for layer in layers}, set()
    readers = network.consumers()
    for node in network.nodes:
        if node.op in _INTEGER_CAPABLE and bits and all(root[name] in bits for name in node.inputs):
            integer_nodes.add(node.name)
        if node.name in integer_nodes and not _is_float_result(node, network):
            site = output_site(node, readers, network)
            bits.setdefault(site, CONTAINER_BITS)
            integer_tensors.add(site)
    return QuantisationPlan(bits, root, frozenset(integer_nodes), frozenset(integer_tensors))


def _value_roots(network: Network) -> dict[str, str]:
    root: dict[str, str] = {}
    for node in network.nodes:
        root[node.name] = root[node.inputs[0]] if node.op in _VALUE_PRESERVING else node.name
    return root


def output_site(node: Node, readers: Mapping[str, list[Node]], network: Network) -> str:
    """The tensor that is quantised for this node's output: behind its relu, which quantising from zero swallows."""
    following = readers[node.name]
    if len(following) == 1 and following[0].op in _RELUS and node.name != network.output:
        return following[0].name
    return node.name


def _is_float_result(node: Node, network: Network) -> bool:
    """A quantised linear layer at the end writes float logits itself, at no cost and without rounding them."""
    return node.op is Op.LINEAR and node.name == network.output


def calibrated_tensors(network: Network) -> tuple[str, ...]:
    """Tensors whose ranges `write_onnx` needs besides the image's, which the input contract tells."""
    inputs = {node.name for node in network.nodes if node.op is Op.INPUT}
    return tuple(name for name in plan_quantisation(network).bits if name not in inputs)


def image_range(contract: InputContract) -> TensorRange:
    """Smallest and largest normalised value that a pixel can have: 8 bits then hold 8-bit images nearly exactly."""
    lows = [-mean / std for mean, std in zip(contract.mean, contract.std, strict=True)]
    highs = [(1 - mean) / std for mean, std in zip(contract.mean, contract.std, strict=True)]
    return min(lows), max(highs)


@dataclass(frozen=True)
class ActivationGrid:
    """Unsigned asymmetric quantisation of one tensor: real = (integer - zero_point) * scale, 0 <= integer <= top."""

    scale: np.float32
    zero_point: int
    top: int


def activation_grid(tensor_range: TensorRange, bits: int) -> ActivationGrid:
    """The grid over a range, widened to hold zero exactly, since zeros pad convolutions.

    Raises:
        ValueError: the range is not finite or is upside down.
    """
    low, high = min(tensor_range[0], 0.0), max(tensor_range[1], 0.0)
    if not np.isfinite([low, high]).all() or tensor_range[0] > tensor_range[1]:
        raise ValueError(f"{tensor_range} is not a range")
    top = 2**bits - 1
    scale = np.float32((high - low) / top)
    if scale < np.finfo(np.float32).tiny:  # A dead tensor: every value is zero on any grid.
        return ActivationGrid(np.float32(1.0), 0, top)
    return ActivationGrid(scale, int(np.clip(np.rint(-low / scale), 0, top)), top)


def quantise_weight(weight: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric per-output-channel integers: int8 of the same shape, and float32 scales (O,)."""
    top = 2 ** (bits - 1) - 1
    peak = np.abs(weight.reshape(len(weight), -1)).max(axis=1)
    scale = (peak / top).astype(np.float32)
    scale[scale < np.finfo(np.float32).tiny] = 1.0
    per_output = scale.reshape(-1, *[1] * (weight.ndim - 1))
    return np.clip(np.rint(weight / per_output), -top, top).astype(np.int8), scale


def quantise_bias(bias: np.ndarray, input_scale: np.float32, weight_scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A bias in the unit of the integer accumulator: int32 (O,), and its scales s_x * s_w (O,)."""
    scale = (input_scale * weight_scale).astype(np.float32)
    limit = float(2**31 - 128)
    return np.clip(np.rint(bias / scale), -limit, limit).astype(np.int32), scale
