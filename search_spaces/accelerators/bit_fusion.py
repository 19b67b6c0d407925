"""A systolic array whose 8-bit multipliers come apart into narrower ones, as in Bit Fusion (Sharma et al., ISCA 2018).

A model of our own, of what the paper and its simulator make public: how many products a unit makes at given bits, the
array's sizes, the synthesised unit's energy, the buffers and the port to the memory. What is not public is ours: how a
layer is cut to fit the buffers (the better of keeping weights and keeping inputs), buffers' energy by the square root
of their size, and grouped convolutions (group by group, of which each fills the array as far as it can). Leakage and
what is between layers are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from search_spaces.accelerators.layers import Column, Layers

WIDEST, NARROWEST = 8, 2
"""Bits of a unit, and of the narrowest multiplier that it comes apart into."""
ACCUMULATOR_BITS = 32


@dataclass(frozen=True, slots=True)
class BitFusion:
    """A configuration.

    Attributes:
        rows, columns: units along the inputs of a dot product, and along outputs.
        port_bits: to and from the memory in a cycle.
        weight_buffer_bits, input_buffer_bits, output_buffer_bits: their sizes.
        unit_cycle_j: joules of a unit in a cycle, whatever its bits (0.459 pJ: the paper's synthesis).
        memory_bit_j: joules of a bit from or to the memory (15 pJ: the simulator's default).
    """

    rows: int
    columns: int
    port_bits: float
    weight_buffer_bits: float
    input_buffer_bits: float
    output_buffer_bits: float
    clock_hz: float
    unit_cycle_j: float = 0.459e-12
    memory_bit_j: float = 15e-12


_KIB = 8 * 1024
EDGE = BitFusion(16, 32, 192, 64 * _KIB, 32 * _KIB, 16 * _KIB, 500e6)
SERVER = BitFusion(16, 32, 4096, 128 * _KIB, 128 * _KIB, 128 * _KIB, 980e6)

_BUFFER_BIT_J, _BUFFER_BITS = 10e-12 / 64, 8 * _KIB
"""Joules of a bit of an 8 KiB buffer: 10 pJ for 64 bits (Horowitz, ISSCC 2014)."""


@dataclass(frozen=True)
class LayerFigures:
    """What each layer takes for one image; all (..., layers). What is not asked for is not computed."""

    layers: Layers
    array: BitFusion

    @property
    def cycles(self) -> Column:
        """The longer of the two, as they overlap."""
        return np.maximum(self.compute_cycles, self.memory_cycles)

    @cached_property
    def compute_cycles(self) -> Column:
        """Of the array."""
        return self.layers.groups * self.layers.pixels * self._passes

    @property
    def memory_cycles(self) -> Column:
        """Of the port."""
        return self.memory_bits / self.array.port_bits

    @cached_property
    def memory_bits(self) -> Column:
        """Moved through the port."""
        return _memory_bits(self.layers, self.array)

    @property
    def energy_j(self) -> Column:
        """Of array, buffers and memory."""
        array = self.array
        energy = self.compute_cycles * array.rows * array.columns * array.unit_cycle_j
        energy = energy + self.memory_bits * array.memory_bit_j
        return energy + _buffer_j(self.layers, array, self._passes)

    @property
    def utilisation(self) -> Column:
        """Of the array's multipliers while it computes, in [0, 1]."""
        return self.layers.macs / (self.compute_cycles * self.array.rows * self.array.columns * self._factor)

    @cached_property
    def _factor(self) -> Column:
        return speed_factor(self.layers.weight_bits, self.layers.activation_bits)

    @cached_property
    def _passes(self) -> Column:
        layers, array = self.layers, self.array
        per_group = layers.inputs / layers.groups * layers.taps
        deep = np.ceil(per_group / (array.rows * self._factor))
        passes: Column = deep * np.ceil(layers.outputs / layers.groups / array.columns)
        return passes


def speed_factor(weight_bits: Column, activation_bits: Column) -> Column:
    """Products of a unit in a cycle: 1 at 8 x 8 bits, 4 at 4 x 4 and 2 x 8, 16 at 2 x 2; 6 bits are as fast as 8."""
    weights, activations = (np.floor(WIDEST / np.maximum(bits, NARROWEST)) for bits in (weight_bits, activation_bits))
    return np.maximum(weights, 1) * np.maximum(activations, 1)


def _memory_bits(layers: Layers, array: BitFusion) -> Column:
    """Bits through the port: each tensor once; where neither weights nor inputs fit, the cheaper is read again.

    Coded maps are decoded behind the port: what fits into a buffer is as if nothing was coded.
    """
    weight_parts = np.ceil(layers.weight_volume / array.weight_buffer_bits)
    input_parts = np.ceil(layers.input_volume / array.input_buffer_bits)
    keeping_weights = layers.weight_volume + layers.input_traffic * weight_parts
    keeping_inputs = layers.input_traffic + layers.weight_volume * input_parts
    return np.minimum(keeping_weights, keeping_inputs) + layers.output_traffic


def _buffer_j(layers: Layers, array: BitFusion, passes: Column) -> Column:
    """Energy of reading both operands for each pass, and of writing and reading sums that are not finished."""
    reads = layers.groups * layers.pixels * passes
    inputs = reads * array.rows * WIDEST * _bit_j(array.input_buffer_bits)
    weights = layers.weight_volume * np.maximum(1, layers.pixels / array.columns) * _bit_j(array.weight_buffer_bits)
    rounds = np.ceil(passes / np.ceil(layers.outputs / layers.groups / array.columns))
    sums = layers.outputs * layers.pixels * ACCUMULATOR_BITS * (2 * rounds - 1) * _bit_j(array.output_buffer_bits)
    energy: Column = inputs + weights + sums
    return energy


def _bit_j(buffer_bits: float) -> float:
    return float(_BUFFER_BIT_J * np.sqrt(buffer_bits / _BUFFER_BITS))
