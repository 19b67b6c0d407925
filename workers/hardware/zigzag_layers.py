"""Layers of a Network in the words of ZigZag: loops, equations, bits. It must not know ZigZag itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from search_spaces.costs import fused_operators, tensor_bits
from search_spaces.network import COMPUTE_OPS, Network, Node, Op, Shape, infer_shapes

ZigzagLayer = dict[str, Any]
"""One entry of a workload, without a name: equal entries are equal work."""


@dataclass(frozen=True)
class LayerFigures:
    """What one layer takes.

    Attributes:
        energy_pj: of multipliers and memories, in picojoules.
        cycles: from loading the first operand to storing the last result.
    """

    energy_pj: float
    cycles: float


def layer_digest(layer: ZigzagLayer) -> str:
    """SHA-256 over the canonical JSON."""
    return hashlib.sha256(json.dumps(layer, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def zigzag_layers(network: Network) -> list[ZigzagLayer]:
    """The convs and linears of a network, in order, at batch 1. Nothing else costs anything in ZigZag."""
    shapes, bits = infer_shapes(network), tensor_bits(network)
    return [
        _layer(operator.nodes[0], shapes, bits[operator.output])
        for operator in fused_operators(network)
        if operator.nodes[0].op in COMPUTE_OPS
    ]


def _layer(node: Node, shapes: Mapping[str, Shape], stored_bits: int) -> ZigzagLayer:
    loops = _linear(node, shapes) if node.op is Op.LINEAR else _conv(node, shapes)
    weights, inputs = node.precision.weight_bits, node.precision.activation_bits
    sums = weights + inputs  # of a product; ZigZag's default is the same at equal bits
    precision = {"W": weights, "I": inputs, "O": sums, "O_final": min(stored_bits, sums)}
    # Both operands come from outside: layers are looked at one by one.
    return {**loops, "id": 0, "operand_precision": precision, "operand_source": {"I": 0, "W": 0}}


def _linear(node: Node, shapes: Mapping[str, Shape]) -> ZigzagLayer:
    return {
        "operator_type": "Gemm",
        "equation": "O[d][k]+=I[d][c]*W[c][k]",
        "dimension_relations": [],
        "loop_dims": ["C", "D", "K"],
        "loop_sizes": [shapes[node.inputs[0]][0], 1, shapes[node.name][0]],
    }


def _conv(node: Node, shapes: Mapping[str, Shape]) -> ZigzagLayer:
    """X is horizontal, Y vertical."""
    inputs, outputs = shapes[node.inputs[0]], shapes[node.name]
    top, left, bottom, right = node.padding
    return {
        "operator_type": "Conv",
        "equation": "O[b][g][k][oy][ox]+=W[g][k][c][fy][fx]*I[b][g][c][iy][ix]",
        "dimension_relations": [
            f"ix={node.stride[1]}*ox+{node.dilation[1]}*fx",
            f"iy={node.stride[0]}*oy+{node.dilation[0]}*fy",
        ],
        "loop_dims": ["B", "K", "G", "OX", "OY", "C", "FX", "FY"],
        "loop_sizes": [
            1,
            outputs[0] // node.groups,
            node.groups,
            outputs[2],
            outputs[1],
            inputs[0] // node.groups,
            node.kernel[1],
            node.kernel[0],
        ],
        "pr_loop_dims": ["IX", "IY"],
        "pr_loop_sizes": [inputs[2], inputs[1]],
        "padding": [[left, right], [top, bottom]],
    }
