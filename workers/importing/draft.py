"""The Network being built from an imported file: its nodes, shapes and weights so far.

It knows how a view becomes a tensor that an operator can take, and nothing of ONNX's operators.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from search_spaces.network import InputContract, Network, Node, Op, Shape, output_shape, unused_name
from workers.importing.views import Atom, View, flat_order, is_axis, plain_view, shuffle_groups
from workers.opaque import OUTPUT, encode_body, input_name
from workers.weights import BATCH_NORM_EPSILON, Weights

INPUT = "input"
MOST_VALUES = 2**24
"""Of one tensor, for one image: more could not be computed for a batch beside others."""


class UnsupportedError(Exception):
    """A node cannot be said in a Network's own operators. The message says why, for people."""


class Draft:
    """Nodes, in order, with the shape of each one's output and its weights.

    Attributes:
        affines: names of batch norms that stand for a constant scale and shift.
    """

    def __init__(self, contract: InputContract) -> None:
        self.contract = contract
        self.nodes: dict[str, Node] = {}
        self.shapes: dict[str, Shape] = {}
        self.weights: Weights = {}
        self.affines: set[str] = set()
        self._shuffled: dict[View, View] = {}
        self._flattened: dict[str, str] = {}
        self._append(Node(INPUT, Op.INPUT), contract.shape)

    def add(self, name: str, op: Op, *inputs: str, weights: Mapping[str, np.ndarray] | None = None, **rest: Any) -> str:
        """Append a node; returns its name, which is `name` with a number behind it where that is taken.

        Args:
            name: what it should be called.
            op: what it computes.
            inputs: tensors that it reads.
            weights: its arrays, by part, such as `weight` and `bias`.
            rest: further fields of the node.

        Raises:
            UnsupportedError: the operator does not fit its inputs.
        """
        node = Node(unused_name(name, self.nodes), op, inputs, **rest)
        try:
            shape = output_shape(node, [self.shapes[name] for name in inputs])
        except ValueError as error:
            raise UnsupportedError(str(error)) from None
        check_size(shape)
        for part, array in (weights or {}).items():
            self.weights[f"{node.name}.{part}"] = np.ascontiguousarray(array, dtype=np.float32)
        return self._append(node, shape)

    def affine(self, name: str, source: str, scale: np.ndarray, shift: np.ndarray) -> str:
        """Scale and shift each channel, both (C,): a batch norm with statistics that do nothing."""
        weights = {
            "weight": scale,
            "bias": shift,
            "running_mean": np.zeros_like(scale),
            "running_var": np.full_like(scale, 1 - BATCH_NORM_EPSILON),
        }
        self.affines.add(added := self.add(name, Op.BATCH_NORM, source, weights=weights))
        return added

    def finish(self, name: str, output: str) -> Network:
        """The network of the nodes that the output needs; weights of others are dropped."""
        needed = {INPUT, output}
        for node in reversed(self.nodes.values()):
            if node.name in needed:
                needed.update(node.inputs)
        nodes = tuple(node for node in self.nodes.values() if node.name in needed)
        self.weights = {key: value for key, value in self.weights.items() if key.rpartition(".")[0] in needed}
        return Network(name, self.contract, nodes, output)

    def _append(self, node: Node, shape: Shape) -> str:
        self.nodes[node.name] = node
        self.shapes[node.name] = shape
        return node.name

    # --- views as tensors -----------------------------------------------------------------------------------------

    def plain(self, source: str) -> View:
        return plain_view(source, self.shapes[source])

    def channel_axis(self, view: View) -> int | None:
        """The axis of the view that runs over all channels of its tensor, in order; None where there is none."""
        size = self.shapes[view.source][0]
        found = [axis for axis, group in enumerate(view.groups) if is_axis(group, 0, size)]
        if size == 1 and len(view.groups) == len(self.shapes[view.source]):
            return 0 if view.groups == self.plain(view.source).groups else None
        return found[0] if len(found) == 1 else None

    def as_map(self, view: View, name: str) -> str:
        """The tensor (channels, height, width) that the view shows; may append nodes called after `name`."""
        shape = self.shapes[view.source]
        if len(view.groups) != 3:
            raise UnsupportedError(f"needs a tensor of four axes, not {(1, *view.shape)}")
        view = self.settled(view, name)
        if view.groups == self.plain(view.source).groups:
            return view.source
        if len(shape) == 1 and is_axis(view.groups[0], 0, shape[0]):
            return self._vector_as_map(view.source)
        return self.arranged(view, name)

    def settled(self, view: View, name: str) -> View:
        """The view; where it shows the channels of a map shuffled, of a tensor in which they are."""
        shape = self.shapes[view.source]
        if len(shape) != 3 or len(view.groups) != 3:
            return view
        groups = shuffle_groups(view.groups[0], 0, shape[0])
        if groups is None or any(not is_axis(view.groups[axis], axis, shape[axis]) for axis in (1, 2)):
            return view
        if view not in self._shuffled:
            self._shuffled[view] = self.plain(self.add(f"{name}.shuffle", Op.SHUFFLE, view.source, groups=groups))
        return self._shuffled[view]

    def as_vector(self, view: View, name: str) -> tuple[str, np.ndarray | None]:
        """The tensor (features,) that a view of one axis shows, and where its order differs the order: (features,).

        The order gives for each feature of the view its place in the tensor.
        """
        if len(view.groups) != 1:
            raise UnsupportedError(f"needs a tensor of two axes, not {(1, *view.shape)}")
        order = flat_order(view)
        in_place = np.array_equal(order, np.arange(len(order)))
        source = view.source
        if len(self.shapes[source]) > 1:
            if source not in self._flattened:
                self._flattened[source] = self.add(f"{name}.flatten", Op.FLATTEN, source)
            source = self._flattened[source]
        return source, None if in_place else order

    def arranged(self, view: View, name: str) -> str:
        """A tensor whose own axes are those of the view, whatever they are."""
        if view.groups == self.plain(view.source).groups:
            return view.source
        body = onnx.GraphProto(name=name)
        declare(body.input, input_name(0), self.shapes[view.source])
        declare(body.output, OUTPUT, view.shape)
        rearrange(body, view, input_name(0), OUTPUT)
        return self.add(f"{name}.arrange", Op.OPAQUE, view.source, shape=view.shape, body=encode_body(body))

    def _vector_as_map(self, source: str) -> str:
        """A vector as (features, 1, 1): what made it is said once more in convs, where it can be.

        Raises:
            UnsupportedError: it was made by something else.
        """
        node = self.nodes[source]
        if len(self.shapes[source]) == 3:
            return source
        if node.op is Op.FLATTEN and self.shapes[node.inputs[0]][1:] == (1, 1):
            return node.inputs[0]
        if node.op in (Op.INPUT, Op.OPAQUE, Op.FLATTEN, Op.SLICE, Op.CONCAT):
            raise UnsupportedError("a vector is used as a map, and was not made from one")
        inputs = tuple(self._vector_as_map(name) for name in node.inputs)
        weights = {
            part: self.weights[f"{source}.{part}"]
            for part in ("weight", "bias", "running_mean", "running_var")
            if f"{source}.{part}" in self.weights
        }
        if node.op is Op.LINEAR:
            weights["weight"] = weights["weight"][:, :, None, None]
            node = replace(node, op=Op.CONV)
        rest = {"channels": node.channels, "bias": node.bias, "groups": node.groups}
        return self.add(f"{source}.map", node.op, *inputs, weights=weights, **rest)


def check_size(shape: Sequence[int]) -> None:
    """Raises `UnsupportedError` for a tensor that is too large."""
    if math.prod(shape) > MOST_VALUES:
        raise UnsupportedError(f"makes {math.prod(shape):,} values of one image; {MOST_VALUES:,} are the most")


def declare(values: Any, name: str, shape: Shape) -> None:
    """Add a float tensor of any batch to a graph's inputs or outputs."""
    values.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", *shape]))


def rearrange(body: onnx.GraphProto, view: View, source: str, target: str) -> None:
    """Append the nodes that make a view's ONNX tensor, called `target`, of the network's tensor, called `source`."""
    atoms, inner = _atoms_and_order(view)
    sizes = [atoms[index].size for index in inner]
    _append_rearrangement(body, source, target, sizes, [int(place) for place in np.argsort(inner)], view.shape)


def restore(body: onnx.GraphProto, view: View, shape: Shape, source: str, target: str) -> None:
    """Append the inverse of `rearrange`: `source` is arranged as the view, `target` has the network's shape."""
    atoms, inner = _atoms_and_order(view)
    _append_rearrangement(body, source, target, [atom.size for atom in atoms], inner, shape)


def _atoms_and_order(view: View) -> tuple[list[Atom], list[int]]:
    """The view's atoms, and their indices in the order that they have in the network's tensor."""
    atoms = [atom for group in view.groups for atom in group]
    return atoms, sorted(range(len(atoms)), key=lambda index: (atoms[index].axis, atoms[index].place))


def _append_rearrangement(
    body: onnx.GraphProto, source: str, target: str, sizes: list[int], order: list[int], shape: Shape
) -> None:
    split, whole = (_constant(body, f"{target}.{part}", [0, *v]) for part, v in (("split", sizes), ("shape", shape)))
    perm = [0, *(1 + place for place in order)]
    body.node.add(op_type="Reshape", input=[source, split], output=[f"{target}.parts"])
    body.node.append(onnx.helper.make_node("Transpose", [f"{target}.parts"], [f"{target}.ordered"], perm=perm))
    body.node.add(op_type="Reshape", input=[f"{target}.ordered", whole], output=[target])


def _constant(body: onnx.GraphProto, name: str, values: list[int]) -> str:
    body.initializer.append(onnx.numpy_helper.from_array(np.array(values, np.int64), name))
    return name
