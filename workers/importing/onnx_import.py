"""From an ONNX file to a Network with its weights, and a report of what became of it.

One pass over the nodes: each tensor is a constant, or a view of a tensor of the network being drafted. What a Network
has no operator for is kept as an opaque node where it can be. Everything that cannot be imported is named at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from search_spaces.blocks import with_blocks
from search_spaces.network import InputContract, Network, Op
from workers.importing.constants import can_fold, fold
from workers.importing.draft import INPUT, Draft, UnsupportedError
from workers.importing.faults import ImportFault, ImportRefusedError, refuse
from workers.importing.naming import node_name, without_common_start
from workers.importing.opaque_parts import keep_as_it_is
from workers.importing.operators import convert
from workers.importing.reading import Source
from workers.importing.simplify import absorb_affines, renamed
from workers.importing.site import Site, Value
from workers.importing.tensors import read_tensor
from workers.importing.views import View, reshaped, transposed
from workers.weights import Weights

_LAST = frozenset({"Softmax", "LogSoftmax", "Sigmoid"})
"""What is left out at the end: it changes no choice of class, and training and scores need what comes before it."""


@dataclass(frozen=True)
class Imported:
    """What a file has become.

    Attributes:
        network, weights: everything fp32, nothing pruned.
        kept: names of nodes that are opaque, with ONNX's operator.
        left_out: the operator that was left out at the end; empty when none was.
        notes: for people.
    """

    network: Network
    weights: Weights
    kept: dict[str, str]
    left_out: str
    notes: tuple[str, ...]


def draft_network(source: Source, name: str, contract: InputContract) -> Imported:
    """Say a checked file in a Network's words.

    Args:
        source: the file.
        name: of the network.
        contract: how an image becomes its input; its shape is (channels, height, width).

    Raises:
        ImportRefusedError: naming every node that cannot be imported.
    """
    run = _Run(source, Draft(contract))
    run.import_nodes()
    network = run.draft.finish(name, run.output())
    network, weights = absorb_affines(network, run.draft.weights, run.draft.affines)
    if not any(node.op is Op.CONV for node in network.nodes):
        raise refuse("the network has no convolution, so there is nothing that could be searched")
    names = without_common_start([node.name for node in network.nodes if node.op is not Op.INPUT])
    network, weights = renamed(network, weights, names)
    kept = {names.get(node, node): op for node, op in run.kept.items() if names.get(node, node) in network.by_name()}
    return Imported(with_blocks(network), weights, kept, run.left_out, tuple(run.notes))


@dataclass
class _Run:
    """One pass over a file."""

    source: Source
    draft: Draft
    values: dict[str, Value] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    faults: list[ImportFault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    left_out: str = ""
    readers: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in self.source.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node.op_type)
        view = self.draft.plain(INPUT)
        self.values[self.source.input_name] = transposed(view, (1, 2, 0)) if self.source.is_channels_last else view
        self.values.update(self.source.constants)

    def import_nodes(self) -> None:
        for place, node in enumerate(self.source.nodes):
            if all(name in self.values for name in node.input if name):
                self._import(place, node)
        if self.faults:
            raise ImportRefusedError(self.faults)

    def output(self) -> str:
        """The vector that the network ends with."""
        value = self.values[self.source.output_name]
        if not isinstance(value, View):
            raise refuse("the output is a constant")
        flat = reshaped(value, (1, max(value.shape, default=0)))
        if flat is None or value.lead:
            raise refuse(f"puts out {list(value.shape)} for an image; a vector of scores or values is needed", "output")
        source, order = self.draft.as_vector(flat, "output")
        return source if order is None else self.draft.arranged(flat, "output")

    def _import(self, place: int, node: onnx.NodeProto) -> None:
        if node.op_type in _LAST and self.source.output_name in node.output:
            self.left_out = node.op_type
            self.values[node.output[0]] = self.values[node.input[0]]
            return
        try:
            results = self._results(place, node)
        except (UnsupportedError, ImportRefusedError) as error:
            self._refuse(node, str(error))
            return
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            self._refuse(node, "its attributes or inputs make no sense; the file is damaged")
            return
        for name, value in zip(node.output, results, strict=False):
            if name:
                self.values[name] = value

    def _refuse(self, node: onnx.NodeProto, message: str) -> None:
        self.faults.append(ImportFault(f"node {node.name or node.op_type} ({node.op_type})", message))

    def _results(self, place: int, node: onnx.NodeProto) -> list[Value]:
        inputs = [self.values[name] if name else None for name in node.input]
        if node.op_type == "Constant":
            return [_constant_of(node)]
        if can_fold(node.op_type) and not any(isinstance(value, View) for value in inputs):
            return list(fold(node, [value for value in inputs if not isinstance(value, View)], self.source.opset))
        site = self._site(place, node, inputs)
        try:
            return convert(site)
        except UnsupportedError as reason:
            return [self._keep(site, node, reason)]

    def _keep(self, site: Site, node: onnx.NodeProto, reason: UnsupportedError) -> Value:
        if not any(isinstance(value, View) for value in site.inputs):
            raise UnsupportedError("works on constants alone, which is computed at export: fold constants there")
        try:
            value = keep_as_it_is(site, node)
        except UnsupportedError as error:
            raise UnsupportedError(f"{reason}; {error}") from None
        if self.draft.nodes[value.source].op is Op.OPAQUE:
            self.kept[value.source] = node.op_type
        return value

    def _site(self, place: int, node: onnx.NodeProto, inputs: list[Value | None]) -> Site:
        weight = next((name for name in node.input if isinstance(self.values.get(name), np.ndarray)), "")
        return Site(
            draft=self.draft,
            op_type=node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}",
            name=node_name(node.name, node.op_type, weight, place),
            attributes={attribute.name: _plain(attribute) for attribute in node.attribute},
            inputs=inputs,
            outputs=list(node.output),
            opset=self.source.opset,
            readers=self.readers.get(node.output[0], ()) if node.output else (),
        )


def _plain(attribute: onnx.AttributeProto) -> Any:
    """Numbers, text and lists of them; tensors and graphs stay what they are."""
    value = onnx.helper.get_attribute_value(attribute)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _constant_of(node: onnx.NodeProto) -> np.ndarray:
    for attribute in node.attribute:
        if attribute.name == "value":
            return read_tensor(attribute.t, {})
        if attribute.name in ("value_float", "value_floats"):
            return np.asarray(onnx.helper.get_attribute_value(attribute), np.float32)
        if attribute.name in ("value_int", "value_ints"):
            return np.asarray(onnx.helper.get_attribute_value(attribute), np.int64)
    raise UnsupportedError("is a constant of text or a sparse one")


def describe_kept(imported: Imported) -> Iterator[tuple[str, str]]:
    """What of the network is kept as it is: (node, why)."""
    for node, op in imported.kept.items():
        yield node, f"Espalier has no operator for {op}; it is kept as it is, with the channels that it reads and makes"
