"""A network's layers as columns, which models of accelerators compute on: one row for each conv and linear, batch 1.

Several networks of one graph may be stacked in front: a column is then (networks, layers).

It must not know any accelerator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import prod
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from search_spaces.activation_maps import coded_bits_by_name
from search_spaces.costs import tensor_bits
from search_spaces.network import Network, infer_shapes

Column = NDArray[np.float64]
NOT_CODED: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True)
class Layers:
    """All columns are float64 (..., layers), whole numbers: they are multiplied into more than 64-bit integers hold.

    Attributes:
        inputs, outputs: channels, or features of a linear layer.
        taps: kernel height times width.
        pixels: places of the output map; 1 for a linear layer on a vector.
        input_values: elements of the input tensor.
        groups: of a conv.
        weight_bits, activation_bits: of the weights and of the input tensor.
        output_bits: that the result is stored at, as its readers want it.
        input_memory_bits, output_memory_bits: of a value as it is in memory, coded or not; else as above.
    """

    names: tuple[str, ...]
    inputs: Column
    outputs: Column
    taps: Column
    pixels: Column
    input_values: Column
    groups: Column
    weight_bits: Column
    activation_bits: Column
    output_bits: Column
    input_memory_bits: Column
    output_memory_bits: Column

    @property
    def weights(self) -> Column:
        """Number of weights."""
        return self.taps * self.inputs / self.groups * self.outputs

    @property
    def macs(self) -> Column:
        return self.weights * self.pixels

    @property
    def weight_volume(self) -> Column:
        """Bits of the weights."""
        return self.weights * self.weight_bits

    @property
    def input_volume(self) -> Column:
        """Bits of the input tensor."""
        return self.input_values * self.activation_bits

    @property
    def output_volume(self) -> Column:
        """Bits of the output tensor as it is stored."""
        return self.outputs * self.pixels * self.output_bits

    @property
    def input_traffic(self) -> Column:
        """Bits that reading the input tensor once moves."""
        return self.input_values * self.input_memory_bits

    @property
    def output_traffic(self) -> Column:
        """Bits that writing the output tensor moves."""
        return self.outputs * self.pixels * self.output_memory_bits


def layers_of(network: Network, coded: Mapping[str, float] = NOT_CODED) -> Layers:
    """The layers of a network, in order; `coded` has the mean bits of a value of each coded map, by its tensor."""
    shapes, bits, in_memory = infer_shapes(network), tensor_bits(network), coded_bits_by_name(network, coded)
    nodes = network.compute_nodes()
    rows = []
    for node in nodes:
        source, target = shapes[node.inputs[0]], shapes[node.name]
        rows.append(
            (
                source[0],
                target[0],
                node.kernel[0] * node.kernel[1],
                prod(target[1:]),
                prod(source),
                node.groups,
                node.precision.weight_bits,
                node.precision.activation_bits,
                bits[node.name],
                in_memory.get(node.inputs[0], node.precision.activation_bits),
                in_memory.get(node.name, bits[node.name]),
            )
        )
    columns = np.array(rows, dtype=np.float64).reshape(len(nodes), len(fields(Layers)) - 1).T
    return Layers(tuple(node.name for node in nodes), *columns)
