"""A network's fused operators as columns, which models of memory traffic compute on: one row for each, batch 1.

It must not know any accelerator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from search_spaces.accelerators.layers import NOT_CODED, Column
from search_spaces.activation_maps import coded_bits_by_name
from search_spaces.costs import FusedOperator, fused_operators, tensor_bits
from search_spaces.network import COMPUTE_OPS, Network, Shape, infer_shapes

BYTE_BITS = 8


@dataclass(frozen=True)
class Operators:
    """All columns are (..., operators), whole numbers in float64 but for coded maps.

    Attributes:
        macs: of convs and linears; what is no layer counts as traffic only.
        bytes_moved: of weights, constants, inputs and the output, each once.
        is_float: whether it computes in floats.
    """

    macs: Column
    bytes_moved: Column
    is_float: NDArray[np.bool_]


def operators_of(network: Network, coded: Mapping[str, float] = NOT_CODED) -> Operators:
    """The operators in order; `coded` has the mean bits of a value of each coded map, by its tensor."""
    shapes, bits = infer_shapes(network), {**tensor_bits(network), **coded_bits_by_name(network, coded)}
    operators = fused_operators(network)
    weights = [_weights(operator, shapes) for operator in operators]
    macs = [count * prod(shapes[one.nodes[0].name][1:]) for count, one in zip(weights, operators, strict=True)]
    moved = [_bytes(one, count, shapes, bits) for count, one in zip(weights, operators, strict=True)]
    is_float = [operator.nodes[0].precision.is_float for operator in operators]
    return Operators(np.array(macs, np.float64), np.array(moved, np.float64), np.array(is_float, np.bool_))


def _weights(operator: FusedOperator, shapes: Mapping[str, Shape]) -> int:
    node = operator.nodes[0]
    if node.op not in COMPUTE_OPS:
        return 0
    return prod(node.kernel) * shapes[node.inputs[0]][0] // node.groups * shapes[node.name][0]


def _bytes(operator: FusedOperator, weights: int, shapes: Mapping[str, Shape], bits: Mapping[str, float]) -> float:
    moved = sum(prod(shapes[name]) * bits[name] for name in (*operator.inputs, operator.output))
    node = operator.nodes[0]
    return node.body_bytes + (moved + weights * node.precision.weight_bits) / BYTE_BITS
