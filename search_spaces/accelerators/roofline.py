"""Graphics processors by their peak figures: each operator takes as long as its arithmetic or its traffic, the longer.

The roofline of Williams et al. (CACM 2009). No real kernel is as fast as a peak, so that latencies are lower bounds: of
use for comparing networks, not for promising milliseconds. Peaks are the makers' data-sheet values, named at each chip.
Two things are assumptions of our own: what starting a kernel takes, and how the board's power divides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from search_spaces.accelerators.layers import NOT_CODED
from search_spaces.activation_maps import coded_bits_by_name
from search_spaces.costs import FusedOperator, fused_operators, tensor_bits
from search_spaces.network import COMPUTE_OPS, Network, Shape, infer_shapes

KERNEL_START_S = 5e-6
"""Assumed: an operator takes so long before it computes anything. Small networks on large chips are little else."""
IDLE_SHARE = 0.25
"""Assumed: the share of the board's power that is drawn whatever it does."""
ARITHMETIC_SHARE = 0.5
"""Assumed: the share of the other power that is the multipliers' when they and the memory both run at their peaks."""
BYTE_BITS = 8


@dataclass(frozen=True, slots=True)
class Roofline:
    """A chip's peaks. A MAC is two of the operations that data sheets count.

    Attributes:
        float_macs_per_s: fp32, without tensor cores (which round fp32 to fewer bits).
        integer_macs_per_s: 8 by 8 bits, dense; None where the chip has no such instruction.
        bytes_per_s: of its memory.
        board_w: the board's power limit.
        source: where the figures are from, and which of them is computed from others.
    """

    float_macs_per_s: float
    integer_macs_per_s: float | None
    bytes_per_s: float
    board_w: float
    source: str


CHIPS: Mapping[str, Roofline] = {
    "p100": Roofline(9.3e12 / 2, None, 732e9, 250, "Tesla P100 PCIe 16 GB data sheet; it has no int8 dot product"),
    "p4000": Roofline(
        5.3e12 / 2,
        4 * 5.3e12 / 2,
        243e9,
        105,
        "Quadro P4000 data sheet; int8 is computed: 4 MACs (dp4a) for each in fp32",
    ),
    "v100": Roofline(
        14e12 / 2,
        4 * 14e12 / 2,
        900e9,
        250,
        "Tesla V100 PCIe data sheet; int8 is computed: 4 MACs (dp4a) for each in fp32",
    ),
    "t4": Roofline(8.1e12 / 2, 130e12 / 2, 320e9, 70, "Tesla T4 data sheet"),
    "a100": Roofline(19.5e12 / 2, 624e12 / 2, 1555e9, 400, "A100 SXM 40 GB data sheet, without sparsity"),
    "h100": Roofline(67e12 / 2, 1979e12 / 2, 3.35e12, 700, "H100 SXM data sheet, int8 without sparsity"),
}


def cost(network: Network, chip: Roofline, coded: Mapping[str, float] = NOT_CODED) -> tuple[float, float]:
    """Seconds and joules of one image; `coded` has the mean bits of a value of each coded map, by its tensor.

    Energy is the idle power for that long, and on top of it for each MAC and each byte what makes the board reach its
    power limit when multipliers and memory both run at their peaks.
    """
    shapes, bits = infer_shapes(network), {**tensor_bits(network), **coded_bits_by_name(network, coded)}
    latency_s = dynamic_j = 0.0
    for operator in fused_operators(network):
        compute_s = _macs(operator, shapes) / _peak(operator, chip)
        memory_s = _bytes(operator, shapes, bits) / chip.bytes_per_s
        latency_s += KERNEL_START_S + max(compute_s, memory_s)
        busy_s = ARITHMETIC_SHARE * compute_s + (1 - ARITHMETIC_SHARE) * memory_s
        dynamic_j += (1 - IDLE_SHARE) * chip.board_w * busy_s
    return latency_s, IDLE_SHARE * chip.board_w * latency_s + dynamic_j


def _peak(operator: FusedOperator, chip: Roofline) -> float:
    if operator.nodes[0].precision.is_float:
        return chip.float_macs_per_s
    assert chip.integer_macs_per_s is not None, "the precision has been checked"
    return chip.integer_macs_per_s


def _macs(operator: FusedOperator, shapes: Mapping[str, Shape]) -> int:
    """What is not a layer counts as traffic only."""
    return _weights(operator, shapes) * prod(shapes[operator.nodes[0].name][1:])


def _bytes(operator: FusedOperator, shapes: Mapping[str, Shape], bits: Mapping[str, float]) -> float:
    moved = sum(prod(shapes[name]) * bits[name] for name in (*operator.inputs, operator.output))
    node = operator.nodes[0]
    return node.body_bytes + (moved + _weights(operator, shapes) * node.precision.weight_bits) / BYTE_BITS


def _weights(operator: FusedOperator, shapes: Mapping[str, Shape]) -> int:
    node = operator.nodes[0]
    if node.op not in COMPUTE_OPS:
        return 0
    return prod(node.kernel) * shapes[node.inputs[0]][0] // node.groups * shapes[node.name][0]
