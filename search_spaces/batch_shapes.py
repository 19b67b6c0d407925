"""What many designs of one space lead to, on arrays: channels, groups and bits, as `apply` has them for one.

A sampler asks what thousands of designs cost, and an agent what each choice of its next step would lead to: one design
takes a millisecond as a Network. It must not know costs; `search_spaces.batch_costs` counts on what is here.

All arrays have the designs first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from search_spaces.apply import Structure, structure_of
from search_spaces.design import EVERY_LAYER, Kind
from search_spaces.grouping import nearest_group_count, nearest_group_size
from search_spaces.network import Network, Node, infer_shapes
from search_spaces.precision import FLOAT_BITS, parse_precision
from search_spaces.space import Decision, Space, base_value

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


class BatchApply:
    """`apply`, for many designs of one space at once. Made once for a space."""

    def __init__(self, space: Space) -> None:
        self.network = network = space.network
        self.structure = structure = structure_of(network)
        self.layers = tuple(structure.layers.values())
        tensor = {node.name: number for number, node in enumerate(network.nodes)}
        self.reads = np.array([tensor[layer.inputs[0]] for layer in self.layers], dtype=np.intp)
        self.makes = np.array([tensor[layer.name] for layer in self.layers], dtype=np.intp)
        decided = [(column, one) for column, one in enumerate(space.decisions) if one.kind is Kind.CHANNELS]
        by_group = {structure.group_index[one.target]: (column, _values(one)) for column, one in decided}
        groups = structure.coupling.groups
        self.kept = _Lookup.of([by_group.get(number, (0, [group.size])) for number, group in enumerate(groups)])
        self.per_atom = _channels_per_atom(network, structure)
        precisions = [_precision_of(space, structure, layer) for layer in self.layers]
        self.weight_bits, self.activation_bits, self.is_codebook = (
            _Lookup.of([parts[part] for parts in precisions]) for part in range(3)
        )
        self.readers = _Readers.of(network, {layer.name: number for number, layer in enumerate(self.layers)})
        self.regroupings = _regroupings(space, structure, self.layers)

    def __call__(self, rows: Integers) -> BatchShapes:
        """Apply designs, given as choice indices, (designs, decisions)."""
        return BatchShapes(self, rows)


@dataclass(frozen=True)
class BatchShapes:
    """Designs of one space as they are applied; what is not asked for is not computed."""

    applied: BatchApply
    rows: Integers

    @cached_property
    def channels(self) -> Integers:
        """Of each tensor, or features of flat ones, (designs, tensors), in the order of the network's nodes."""
        # As floats: whole numbers this small are exact, and the product is a hundred times as fast.
        kept = self.applied.kept(self.rows).astype(np.float64)
        return (kept @ self.applied.per_atom).astype(np.int64)

    @cached_property
    def inputs(self) -> Integers:
        """Channels that each layer reads, (designs, layers), in the order of the layers."""
        return self.channels[:, self.applied.reads]

    @cached_property
    def outputs(self) -> Integers:
        """Channels that each layer makes, (designs, layers)."""
        return self.channels[:, self.applied.makes]

    @cached_property
    def groups(self) -> Integers:
        """Of each layer, (designs, layers). Depthwise ones stay that, others keep their number, but for decisions."""
        is_depthwise = [layer.name in self.applied.structure.depthwise for layer in self.applied.layers]
        groups = np.where(is_depthwise, self.inputs, [layer.groups for layer in self.applied.layers])
        for one in self.applied.regroupings:
            chosen = one.values[self.rows[:, one.column]]
            counts = one.counts(self.inputs[:, one.layer], self.outputs[:, one.layer], chosen)
            groups[:, one.layer] = np.where(chosen == one.unnamed, groups[:, one.layer], counts)
        return groups

    @cached_property
    def weight_bits(self) -> Integers:
        """Of each layer, (designs, layers)."""
        return self.applied.weight_bits(self.rows)

    @cached_property
    def activation_bits(self) -> Integers:
        """Of each layer, (designs, layers)."""
        return self.applied.activation_bits(self.rows)

    @cached_property
    def is_codebook(self) -> Flags:
        """Whether each layer's weights are indices into one, (designs, layers)."""
        return self.applied.is_codebook(self.rows).astype(np.bool_)

    @cached_property
    def tensor_bits(self) -> Integers:
        """That each tensor is stored at, (designs, tensors); as `costs.tensor_bits`."""
        return self.applied.readers.highest(self.activation_bits)


@dataclass(frozen=True)
class _Lookup:
    """Numbers that each follow from one decision, or from none.

    Attributes:
        columns: the decision of each number, (numbers,).
        table: its value at each choice, (numbers, most choices).
    """

    columns: NDArray[np.intp]
    table: Integers

    @classmethod
    def of(cls, parts: Sequence[tuple[int, Sequence[int]]]) -> _Lookup:
        """Each part is a decision's column and the number at each of its choices; one value holds at all."""
        width = max((len(values) for _, values in parts), default=1)
        table = np.zeros((len(parts), width), dtype=np.int64)
        for number, (_, values) in enumerate(parts):
            table[number] = values[0] if len(values) == 1 else [*values, *[0] * (width - len(values))]
        return cls(np.array([column for column, _ in parts], dtype=np.intp), table)

    def __call__(self, rows: Integers) -> Integers:
        """(designs, numbers)."""
        if not (self.table[:, :1] != self.table).any():
            return np.repeat(self.table[None, :, 0], len(rows), axis=0)
        chosen: Integers = self.table[np.arange(len(self.columns)), rows[:, self.columns]]
        return chosen


@dataclass(frozen=True)
class _Readers:
    """The layers that decide what each tensor is stored at: those that read it, with only other operators between.

    Attributes:
        layers: numbers of them, (tensors, most readers), repeated where there are fewer.
        least: bits that a tensor has at least: of the network's output, and of what nothing reads.
    """

    layers: NDArray[np.intp]
    least: Integers

    @classmethod
    def of(cls, network: Network, layer_number: Mapping[str, int]) -> _Readers:
        wanted: dict[str, set[int]] = {node.name: set() for node in network.nodes}
        floats = {network.output}
        for node in reversed(network.nodes):
            if not wanted[node.name]:
                floats.add(node.name)
            for name in node.inputs:
                if node.name in layer_number:
                    wanted[name].add(layer_number[node.name])
                    continue
                wanted[name] |= wanted[node.name]
                if node.name in floats:
                    floats.add(name)
        width = max(1, *(len(layers) for layers in wanted.values()))
        rows = [sorted(layers) or [0] for layers in wanted.values()]
        least = [FLOAT_BITS if name in floats else 0 for name in wanted]
        padded = [[*row, *[row[0]] * (width - len(row))] for row in rows]
        return cls(np.array(padded, dtype=np.intp), np.array(least, dtype=np.int64))

    def highest(self, activation_bits: Integers) -> Integers:
        """(designs, tensors), of what each layer wants to read, (designs, layers)."""
        if not activation_bits.shape[1]:
            return np.repeat(self.least[None], len(activation_bits), axis=0)
        most = activation_bits[:, self.layers[:, 0]]
        for column in range(1, self.layers.shape[1]):
            most = np.maximum(most, activation_bits[:, self.layers[:, column]])
        return np.maximum(most, self.least)


@dataclass(frozen=True)
class _Regrouping:
    """What a decision on groups makes of one layer.

    Attributes:
        values: of the decision's choices.
        unnamed: the value that a design does not name, as it is the base's; the layer is then left alone.
        counts: number of groups, of inputs, outputs and values, all (designs,).
    """

    layer: int
    column: int
    values: Integers
    unnamed: int | None
    counts: Callable[[Integers, Integers, Integers], Integers]


def _regroupings(space: Space, structure: Structure, layers: Sequence[Node]) -> list[_Regrouping]:
    """One for all layers first, then those of single layers, which override it."""
    found = []
    for kind in (Kind.GROUPS, Kind.GROUP_SIZE):
        for column, decision in enumerate(space.decisions):
            if decision.kind is not kind:
                continue
            is_of_all = decision.target == EVERY_LAYER and EVERY_LAYER not in structure.grouped
            counts = _exactly if not is_of_all else _nearest_count if kind is Kind.GROUPS else _nearest_size
            base = base_value(space.network, decision)
            unnamed = base if isinstance(base, int) else None
            names = structure.grouped if is_of_all else {decision.target}
            values = np.array(_values(decision), dtype=np.int64)
            numbers = [number for number, layer in enumerate(layers) if layer.name in names]
            found += [(is_of_all, _Regrouping(number, column, values, unnamed, counts)) for number in numbers]
    return [one for _, one in sorted(found, key=lambda pair: not pair[0])]


def _exactly(inputs: Integers, outputs: Integers, sizes: Integers) -> Integers:
    return inputs // sizes


def _nearest_count(inputs: Integers, outputs: Integers, counts: Integers) -> Integers:
    return _each(nearest_group_count, inputs, outputs, counts)


def _nearest_size(inputs: Integers, outputs: Integers, sizes: Integers) -> Integers:
    return inputs // _each(nearest_group_size, inputs, outputs, sizes)


def _each(nearest: Callable[[int, int, int], int], *columns: Integers) -> Integers:
    """A function of three whole numbers, for each row; few rows differ."""
    distinct, place = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
    found = np.array([nearest(*map(int, row)) for row in distinct], dtype=np.int64)
    return found[place.reshape(-1)]


def spatial_places(network: Network) -> Integers:
    """Elements of each tensor for one channel, (tensors,): no design changes them."""
    return np.array([math.prod(shape[1:]) for shape in infer_shapes(network).values()], dtype=np.int64)


def _channels_per_atom(network: Network, structure: Structure) -> NDArray[np.float64]:
    """Channels of each tensor for each kept atom of a group, (groups, tensors)."""
    table = np.zeros((len(structure.coupling.groups), len(network.nodes)))
    for number, node in enumerate(network.nodes):
        for group, channels in structure.coupling.channels_per_atom[node.name]:
            table[group, number] = channels
    return table


def _values(decision: Decision) -> list[int]:
    """Of a decision whose choices are numbers."""
    return [int(choice) for choice in decision.choices]


_Parts = tuple[tuple[int, list[int]], tuple[int, list[int]], tuple[int, list[int]]]


def _precision_of(space: Space, structure: Structure, layer: Node) -> _Parts:
    """Weight bits, activation bits and whether there is a codebook, each with its decision; separate bits override."""
    own = layer.precision
    parts = [(0, [own.weight_bits]), (0, [own.activation_bits]), (0, [int(own.is_codebook)])]
    for kind in (Kind.PRECISION, Kind.WEIGHT_BITS, Kind.ACTIVATION_BITS):
        for column, decision in enumerate(space.decisions):
            if decision.kind is not kind or layer.name not in structure.layers_of_target[decision.target]:
                continue
            if kind is Kind.PRECISION:
                choices = [parse_precision(str(choice)) for choice in decision.choices]
                parts[0] = (column, [choice.weight_bits for choice in choices])
                parts[1] = (column, [choice.activation_bits for choice in choices])
                parts[2] = (column, [int(choice.is_codebook) for choice in choices])
            else:
                parts[kind is Kind.ACTIVATION_BITS] = (column, _values(decision))
    return parts[0], parts[1], parts[2]
