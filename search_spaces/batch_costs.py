"""What many designs of one space cost, at once: `costs` and the closed forms of devices, on arrays.

Both ways give the same numbers, counts to the last bit, which `tests/search_spaces/test_batch_costs.py` holds over
random networks: what a sampler keeps a budget by is what judges its designs later. It must not know budgets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from search_spaces.accelerators.layers import Layers
from search_spaces.accelerators.models import MODELS
from search_spaces.accelerators.operators import BYTE_BITS, Operators
from search_spaces.batch_shapes import BatchApply, BatchShapes, Integers, spatial_places
from search_spaces.costs import WORD_BYTES, FusedOperator, fused_operators
from search_spaces.network import COMPUTE_OPS, Network, Op
from search_spaces.objectives import SYMBOLIC_METRICS, Metric
from search_spaces.precision import FLOAT_BITS
from search_spaces.space import Space

Numbers = NDArray[np.float64]

CHUNK = 2048
"""Designs that are computed at a time: with more the arrays leave the cache."""


class BatchCosts:
    """The symbolic metrics of a space's designs, and those of a simulated device that is a closed form.

    Designs are rows of choice indices, (designs, decisions), as `Space.indices_of` gives them.
    """

    def __init__(self, space: Space, device: str | None = None) -> None:
        """`device` is one of `MODELS`.

        Raises:
            KeyError: there is no such model.
        """
        self._apply = BatchApply(space)
        self._graph = _Graph.of(space.network)
        self._width = len(space.decisions)
        self._model = None if device is None else MODELS[device]

    @property
    def metrics(self) -> frozenset[str]:
        """What is told."""
        return frozenset(SYMBOLIC_METRICS) | frozenset(self._model.capabilities.metrics if self._model else ())

    @property
    def sums(self) -> frozenset[str]:
        """Those that are sums over the parts of a network; what is alive at one time is a maximum."""
        return self.metrics - {Metric.PEAK_ACTIVATION_BYTES, Metric.MEMORY_BYTES}

    def __call__(self, indices: Sequence[Sequence[int]] | Integers, wanted: Sequence[str]) -> dict[str, Numbers]:
        """The wanted metrics of each design, (designs,).

        Raises:
            KeyError: one of them is not told.
        """
        if unknown := set(wanted) - self.metrics:
            raise KeyError(f"nothing tells {sorted(unknown)[0]}")
        chunks = [self._chunk(rows, wanted) for rows in self._in_chunks(indices)]
        return {metric: np.concatenate([np.empty(0), *(chunk[metric] for chunk in chunks)]) for metric in wanted}

    def parts(self, indices: Sequence[Sequence[int]] | Integers, metric: str) -> Numbers:
        """What the layers, tensors or operators of at least one design take, (designs, parts); they sum up to the cost.

        Raises:
            KeyError: the metric is none of `sums`.
        """
        if metric not in self.sums:
            raise KeyError(f"{metric} is no sum over parts")
        return np.concatenate([self._parts_of(rows, metric) for rows in self._in_chunks(indices)])

    def _in_chunks(self, indices: Sequence[Sequence[int]] | Integers) -> list[Integers]:
        rows = np.asarray(indices, dtype=np.int64).reshape(len(indices), self._width)
        return [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]

    def _parts_of(self, rows: Integers, metric: str) -> Numbers:
        columns = _Columns(self._graph, self._apply(rows))
        if metric in SYMBOLIC_METRICS:
            return _PARTS[Metric(metric)](columns).astype(np.float64)
        assert self._model is not None, "the metric is told"
        return self._model.figures(_Apart(columns))[Metric(metric)]()

    def _chunk(self, rows: Integers, wanted: Sequence[str]) -> dict[str, Numbers]:
        columns = _Columns(self._graph, self._apply(rows))
        symbolic = {metric: _COUNTS[Metric(metric)](columns) for metric in wanted if metric in SYMBOLIC_METRICS}
        if self._model is None or len(symbolic) == len(wanted):
            return symbolic
        told = self._model.figures(columns)
        return {metric: symbolic[metric] if metric in symbolic else told[Metric(metric)]() for metric in wanted}


@dataclass(frozen=True, eq=False)
class _Graph:
    """What no design changes of a network.

    Attributes:
        taps: of each layer's kernel, (layers,).
        read, made: number of the tensor that each layer reads and makes, (layers,).
        biased: layers with a bias, or a norm that is folded into one, (layers,).
        places: elements of each tensor for one channel, (tensors,).
        norm_tensors: those of norms that are folded into nothing.
        constant_bytes: of what is kept as it is, (operators,).
        operator_of_layer: (layers,).
        touched: how often each operator reads or writes each tensor, (tensors, operators).
        alive: which tensors are alive while each operator runs, (tensors, operators).
    """

    taps: Integers
    read: Integers
    made: Integers
    biased: NDArray[np.bool_]
    places: Integers
    norm_tensors: Integers
    constant_bytes: Integers
    operator_of_layer: Integers
    touched: Numbers
    alive: Numbers

    @classmethod
    def of(cls, network: Network) -> _Graph:
        tensor = {node.name: number for number, node in enumerate(network.nodes)}
        operators = fused_operators(network)
        layers = [(number, one) for number, one in enumerate(operators) if one.nodes[0].op in COMPUTE_OPS]
        first = [one.nodes[0] for _, one in layers]
        return cls(
            taps=np.array([node.kernel[0] * node.kernel[1] for node in first], dtype=np.int64),
            read=np.array([tensor[node.inputs[0]] for node in first], dtype=np.int64),
            made=np.array([tensor[node.name] for node in first], dtype=np.int64),
            biased=np.array([one.nodes[0].bias or _folds(one) for _, one in layers], dtype=np.bool_),
            places=spatial_places(network),
            norm_tensors=np.array([tensor[name] for one in operators for name in _unfolded(one)], dtype=np.int64),
            constant_bytes=np.array([_constant_bytes(one) for one in operators], dtype=np.int64),
            operator_of_layer=np.array([number for number, _ in layers], dtype=np.int64),
            touched=_touched(operators, tensor),
            alive=_alive(operators, tensor),
        )


def _folds(operator: FusedOperator) -> bool:
    return len(operator.nodes) > 1 and operator.nodes[1].op is Op.BATCH_NORM


def _unfolded(operator: FusedOperator) -> list[str]:
    """The norms that have a scale and a shift of their own."""
    start = 2 if operator.nodes[0].op in COMPUTE_OPS and _folds(operator) else 0
    return [node.name for node in operator.nodes[start:] if node.op is Op.BATCH_NORM]


def _constant_bytes(operator: FusedOperator) -> int:
    return operator.nodes[0].body_bytes if operator.nodes[0].op not in COMPUTE_OPS else 0


def _touched(operators: Sequence[FusedOperator], tensor: Mapping[str, int]) -> Numbers:
    table = np.zeros((len(tensor), len(operators)))
    for number, operator in enumerate(operators):
        for name in (*operator.inputs, operator.output):
            table[tensor[name], number] += 1
    return table


def _alive(operators: Sequence[FusedOperator], tensor: Mapping[str, int]) -> Numbers:
    """As `costs.peak_activation_bytes` counts: from where a tensor is made to its last reader, or to the end."""
    table = np.zeros((len(tensor), len(operators)))
    born = {operator.output: step for step, operator in enumerate(operators)}
    last = {name: step for step, operator in enumerate(operators) for name in operator.inputs}
    for name in {**born, **last}:
        table[tensor[name], born.get(name, 0) : last.get(name, len(operators)) + 1] = 1
    return table


@dataclass(frozen=True)
class _Columns:
    """Many networks of one graph; the closed forms of devices compute on it, see `accelerators.models.Columns`."""

    graph: _Graph
    shapes: BatchShapes

    @cached_property
    def elements(self) -> Integers:
        """Of each tensor, (designs, tensors)."""
        return self.shapes.channels * self.graph.places

    @cached_property
    def tensor_bytes(self) -> Numbers:
        bits = self.elements * self.shapes.tensor_bits
        return -(-bits // BYTE_BITS).astype(np.float64)

    @cached_property
    def weights(self) -> Integers:
        """Number of each layer's weights, (designs, layers)."""
        return self.graph.taps * (self.shapes.inputs // self.shapes.groups) * self.shapes.outputs

    @cached_property
    def macs(self) -> Integers:
        return self.weights * self.graph.places[self.graph.made]

    @cached_property
    def stored_bytes(self) -> Numbers:
        """Of each layer, each norm and each operator that is kept as it is, (designs, parts)."""
        shapes = self.shapes
        words = np.where(shapes.weight_bits < FLOAT_BITS, shapes.outputs, 0)
        words = np.where(shapes.is_codebook, 2**shapes.weight_bits, words) + shapes.outputs * self.graph.biased
        stored = -(-self.weights * shapes.weight_bits // BYTE_BITS) + WORD_BYTES * words
        norms = 2 * WORD_BYTES * shapes.channels[:, self.graph.norm_tensors]
        constant = np.broadcast_to(self.graph.constant_bytes, (len(stored), len(self.graph.constant_bytes)))
        return np.concatenate([stored, norms, constant], axis=1).astype(np.float64)

    @cached_property
    def size_bytes(self) -> Numbers:
        total: Numbers = self.stored_bytes.sum(axis=1)
        return total

    @cached_property
    def peak_activation_bytes(self) -> Numbers:
        peak: Numbers = (self.tensor_bytes @ self.graph.alive).max(axis=1)
        return peak

    @cached_property
    def moved_bytes(self) -> Numbers:
        """Of each tensor, each time that it is read or written, (designs, tensors)."""
        moved: Numbers = self.tensor_bytes * self.graph.touched.sum(axis=1)
        return moved

    @cached_property
    def activation_traffic_bytes(self) -> Numbers:
        traffic: Numbers = self.moved_bytes.sum(axis=1)
        return traffic

    @cached_property
    def memory_bytes(self) -> Numbers:
        return self.size_bytes + self.peak_activation_bytes

    @cached_property
    def layers(self) -> Layers:
        shapes, graph = self.shapes, self.graph
        output_bits = shapes.tensor_bits[:, graph.made]
        columns = (
            shapes.inputs,
            shapes.outputs,
            np.broadcast_to(graph.taps, shapes.inputs.shape),
            np.broadcast_to(graph.places[graph.made], shapes.inputs.shape),
            self.elements[:, graph.read],
            shapes.groups,
            shapes.weight_bits,
            shapes.activation_bits,
            output_bits,
            shapes.activation_bits,
            output_bits,
        )
        return Layers((), *(column.astype(np.float64) for column in columns))

    @cached_property
    def operators(self) -> Operators:
        shapes, graph = self.shapes, self.graph
        shape = (len(shapes.inputs), graph.touched.shape[1])
        macs, weight_bits, is_float = np.zeros(shape), np.zeros(shape), np.full(shape, True)
        macs[:, graph.operator_of_layer] = self.macs
        weight_bits[:, graph.operator_of_layer] = self.weights * shapes.weight_bits
        wide = (shapes.weight_bits == FLOAT_BITS) & (shapes.activation_bits == FLOAT_BITS)
        is_float[:, graph.operator_of_layer] = wide
        moved_bits = (self.elements * shapes.tensor_bits).astype(np.float64) @ graph.touched
        return Operators(macs, graph.constant_bytes + (moved_bits + weight_bits) / BYTE_BITS, is_float)


@dataclass(frozen=True)
class _Apart:
    """Each layer, or operator, as a network of its own: what models tell of them is (designs, layers or operators)."""

    columns: _Columns

    @property
    def layers(self) -> Layers:
        found = self.columns.layers
        return Layers(found.names, *(getattr(found, one.name)[..., None] for one in fields(found)[1:]))

    @property
    def operators(self) -> Operators:
        found = self.columns.operators
        return Operators(found.macs[..., None], found.bytes_moved[..., None], found.is_float[..., None])

    @property
    def memory_bytes(self) -> Numbers:
        return self.columns.memory_bytes


def _total(column: Callable[[_Columns], Integers]) -> Callable[[_Columns], Numbers]:
    return lambda columns: column(columns).sum(axis=1).astype(np.float64)


_COUNTS: Mapping[Metric, Callable[[_Columns], Numbers]] = {
    Metric.MACS: _total(lambda columns: columns.macs),
    Metric.PARAMETERS: _total(lambda columns: columns.weights),
    Metric.SIZE_BYTES: lambda columns: columns.size_bytes,
    Metric.ACTIVATION_TRAFFIC_BYTES: lambda columns: columns.activation_traffic_bytes,
    Metric.PEAK_ACTIVATION_BYTES: lambda columns: columns.peak_activation_bytes,
}

_PARTS: Mapping[Metric, Callable[[_Columns], Numbers | Integers]] = {
    Metric.MACS: lambda columns: columns.macs,
    Metric.PARAMETERS: lambda columns: columns.weights,
    Metric.SIZE_BYTES: lambda columns: columns.stored_bytes,
    Metric.ACTIVATION_TRAFFIC_BYTES: lambda columns: columns.moved_bytes,
}
