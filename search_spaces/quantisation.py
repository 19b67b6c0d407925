"""Which tensors of a network as it is deployed are quantised, and what computes in integers. Pure data.

Shaped by what runtimes fuse. The rules, in the words of the field:

- Activation bits belong to a tensor: a layer's activation bits mean its input. Readers that disagree take
  the higher bits.
- A quantised layer's output is quantised too (after the relu that follows it), or nothing would fuse.
- An addition, product, concatenation or average whose inputs are all quantised has a quantised output.
- Flatten, shuffle, slice, pad and max pool make no new value but zero, so they share their input's numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from search_spaces.network import COMPUTE_OPS, Network, Node, Op
from search_spaces.precision import CONTAINER_BITS, FP32, W8A8, Precision

_VALUE_PRESERVING = frozenset({Op.FLATTEN, Op.SHUFFLE, Op.SLICE, Op.PAD, Op.MAX_POOL})
_RELUS = frozenset({Op.RELU, Op.RELU6})
_INTEGER_CAPABLE = frozenset({Op.ADD, Op.MULTIPLY, Op.CONCAT, Op.GLOBAL_AVERAGE_POOL, Op.AVERAGE_POOL})


def is_quantised_layer(node: Node) -> bool:
    """Whether it computes in integers. A layer with weights in few bits and a wider input computes in floats."""
    return node.op in COMPUTE_OPS and node.precision.is_integer


def why_emulated(network: Network) -> str:
    """What of a network's precisions a file computes in wider arithmetic, for people; empty if nothing.

    What comes out is what such arithmetic would give, but for 16-bit activations, which are not rounded.
    """
    precisions = sorted({layer.precision for layer in network.compute_nodes()}, reverse=True)
    return "; ".join(f"{precision}: {reason}" for precision in precisions if (reason := _emulation(precision)))


def _emulation(precision: Precision) -> str:
    if precision in (FP32, W8A8):
        return ""
    if precision.is_integer:
        return f"grid values in {CONTAINER_BITS}-bit containers"
    values = "values of its codebook" if precision.is_codebook else "values of its grid"
    held = "" if precision.weight_bits == FP32.weight_bits else f"weights are {values}, held and computed in fp32"
    wide = "" if precision.activation_bits == FP32.activation_bits else "activations are computed in fp32, unrounded"
    return ", ".join(part for part in (held, wide) if part)


def foldable_norms(network: Network) -> dict[str, str]:
    """Layer to the batch norm that is folded into it: the only reader of a conv or linear that is no output."""
    nodes, readers = network.by_name(), network.consumers()
    return {
        node.inputs[0]: node.name
        for node in network.nodes
        if node.op is Op.BATCH_NORM and _is_only_reader(nodes[node.inputs[0]], readers, network)
    }


def without_norms(network: Network, folded: Mapping[str, str]) -> Network:
    """The network once these batch norms are folded into their layers, which get a bias and keep their names."""
    renamed = {norm: layer for layer, norm in folded.items()}
    if not renamed:
        return network
    nodes = tuple(_renamed(node, renamed, folded) for node in network.nodes if node.name not in renamed)
    return replace(network, nodes=nodes, output=renamed.get(network.output, network.output))


def _renamed(node: Node, renamed: Mapping[str, str], folded: Mapping[str, str]) -> Node:
    if node.name not in folded and renamed.keys().isdisjoint(node.inputs):
        return node  # making a node anew takes longer than all else here
    inputs = tuple(renamed.get(name, name) for name in node.inputs)
    return replace(node, inputs=inputs, bias=node.bias or node.name in folded)


def _is_only_reader(layer: Node, readers: Mapping[str, list[Node]], network: Network) -> bool:
    return layer.op in COMPUTE_OPS and len(readers[layer.name]) == 1 and layer.name != network.output


@dataclass(frozen=True)
class QuantisationPlan:
    """Where a file has quantised tensors.

    Attributes:
        bits: bits of each quantised root tensor.
        root: for every tensor the tensor whose values it shares; itself but for value-preserving operators.
        integer_nodes: nodes that compute in integers, and so read quantised tensors.
        integer_tensors: roots that exist in integers only, whoever reads them.
    """

    bits: Mapping[str, int]
    root: Mapping[str, str]
    integer_nodes: frozenset[str]
    integer_tensors: frozenset[str]

    def reads_quantised(self, reader: str, tensor: str) -> bool:
        """Whether `reader` is fed the quantised form of `tensor`."""
        root = self.root[tensor]
        return root in self.integer_tensors or (root in self.bits and reader in self.integer_nodes)


def plan_quantisation(network: Network) -> QuantisationPlan:
    """Decide which tensors of a folded network are quantised, and to how many bits."""
    root = _value_roots(network)
    layers = [node for node in network.nodes if is_quantised_layer(node)]
    bits: dict[str, int] = {}
    for layer in layers:
        source = root[layer.inputs[0]]
        bits[source] = max(bits.get(source, 0), layer.precision.activation_bits)
    integer_nodes, integer_tensors = {layer.name for layer in layers}, set()
    readers = network.consumers()
    for node in network.nodes:
        if node.op in _INTEGER_CAPABLE and bits and all(root[name] in bits for name in node.inputs):
            integer_nodes.add(node.name)
        if node.name in integer_nodes and not _is_float_result(node, network):
            site = output_site(node, readers, network)
            bits.setdefault(site, CONTAINER_BITS)
            integer_tensors.add(site)
    return QuantisationPlan(bits, root, frozenset(integer_nodes), frozenset(integer_tensors))


def _value_roots(network: Network) -> dict[str, str]:
    root: dict[str, str] = {}
    for node in network.nodes:
        root[node.name] = root[node.inputs[0]] if node.op in _VALUE_PRESERVING else node.name
    return root


def output_site(node: Node, readers: Mapping[str, list[Node]], network: Network) -> str:
    """The tensor that is quantised for this node's output: behind its relu, which quantising from zero swallows."""
    following = readers[node.name]
    if len(following) == 1 and following[0].op in _RELUS and node.name != network.output:
        return following[0].name
    return node.name


def _is_float_result(node: Node, network: Network) -> bool:
    """A quantised linear layer at the end writes float logits itself, at no cost and without rounding them."""
    return node.op is Op.LINEAR and node.name == network.output
