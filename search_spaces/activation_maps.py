"""Which activation maps travel between operators and memory, and in how many bits. It knows no weights, no images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from search_spaces.costs import fused_operators
from search_spaces.network import Network, Node, Op, infer_shapes
from search_spaces.precision import FLOAT_BITS
from search_spaces.quantisation import QuantisationPlan, foldable_norms, plan_quantisation, without_norms

FLOAT_MAP_BITS = 16
"""Maps of floats are rounded to so many bits before they are coded."""


@dataclass(frozen=True, slots=True)
class ActivationMap:
    """A tensor that one fused operator writes and another reads; behind the relu, where there is one.

    Attributes:
        tensor: its name.
        elements: of one image.
        bits: q of its values: those that its integers have, or what floats are rounded to.
        is_quantised: whether all that is read of it are integers.
    """

    tensor: str
    elements: int
    bits: int
    is_quantised: bool

    @property
    def bytes_as_computed(self) -> float:
        """Of one image, without rounding floats."""
        return self.elements * (self.bits if self.is_quantised else FLOAT_BITS) / 8


def travelling_maps(network: Network, float_bits: int = FLOAT_MAP_BITS) -> tuple[ActivationMap, ...]:
    """All maps of a network as it is deployed, in the order that they are written in; neither image nor logits."""
    deployed = without_norms(network, foldable_norms(network))
    operators, shapes, plan = fused_operators(deployed), infer_shapes(deployed), plan_quantisation(deployed)
    readers = _readers(deployed)
    read = {name for operator in operators for name in operator.inputs}
    maps = []
    for tensor in (operator.output for operator in operators if operator.output in read):
        is_quantised = _is_quantised(tensor, readers, plan)
        bits = plan.bits[plan.root[tensor]] if is_quantised else float_bits
        maps.append(ActivationMap(tensor, math.prod(shapes[tensor]), bits, is_quantised))
    return tuple(maps)


def coded_bits_by_name(network: Network, coded: Mapping[str, float]) -> dict[str, float]:
    """Mean bits of a value of each coded map, by all names that it goes by: of what is fused before it, of flattens.

    Args:
        network: as it is deployed.
        coded: mean bits of a value, by the tensor of a map.
    """
    bits: dict[str, float] = {}
    if not coded:  # as nearly always: models are asked for thousands of networks
        return bits
    for operator in fused_operators(network):
        if operator.output in coded:
            bits |= dict.fromkeys((node.name for node in operator.nodes), coded[operator.output])
    for node in network.nodes:
        if node.op is Op.FLATTEN and node.inputs[0] in bits:
            bits[node.name] = bits[node.inputs[0]]
    return bits


def _readers(network: Network) -> dict[str, list[tuple[Node, str]]]:
    """For every tensor the nodes that read it or a flattened form of it, and the name that they read."""
    readers: dict[str, list[tuple[Node, str]]] = {node.name: [] for node in network.nodes}
    for node in reversed(network.nodes):
        for name in node.inputs:
            readers[name] += readers[node.name] if node.op is Op.FLATTEN else [(node, name)]
    return readers


def _is_quantised(tensor: str, readers: Mapping[str, list[tuple[Node, str]]], plan: QuantisationPlan) -> bool:
    return plan.root[tensor] in plan.integer_tensors or all(
        plan.reads_quantised(reader.name, name) for reader, name in readers[tensor]
    )
