"""What a network costs, counted from its data alone, at batch 1. It must not know devices or weights.

Conventions, all on the network as it is deployed:

- A fused operator is a conv, linear, add, pool ... with the batch norms and activation functions that
  alone read its result. It reads its inputs and writes one output; what lies between is never stored.
- A batch norm right after a conv or linear is folded: it costs one bias per output channel.
- MACs are those of convs and linears. Parameters are their weights, without biases and batch norms.
- Flatten is a view of its input: free, and its output is the same memory.
- An opaque node reads and writes its tensors and stores its constants; what it computes is not counted.
- A tensor is stored at the bits that its readers want. A layer wants its `activation_bits`; any other
  operator wants what is wanted of its own result; readers that disagree get the higher bits. The
  network's output is fp32.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from search_spaces.network import ACTIVATION_OPS, COMPUTE_OPS, Network, Node, Op, Shape, infer_shapes
from search_spaces.objectives import Metric
from search_spaces.precision import FLOAT_BITS, Precision
from search_spaces.quantisation import foldable_norms, plan_quantisation, without_norms

WORD_BYTES = 4
"""Of a bias (fp32, or int32 in an int8 layer), of a weight scale and of a value of a codebook."""

FUSED_OPS = ACTIVATION_OPS | {Op.BATCH_NORM, Op.POINTWISE}


@dataclass(frozen=True, slots=True)
class FusedOperator:
    """A node with the norms and activation functions that are computed together with it.

    Attributes:
        nodes: in order; the last one's name is the output tensor.
        inputs: tensors read; a flattened tensor goes by the name of what was flattened.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]

    @property
    def output(self) -> str:
        return self.nodes[-1].name


@dataclass(frozen=True, slots=True)
class LayerCost:
    """What one conv or linear costs. Elements are counted before, bytes after its precision is applied."""

    name: str
    block: str
    macs: int
    parameters: int
    size_bytes: int
    input_elements: int
    output_elements: int
    input_bytes: int
    output_bytes: int

    @property
    def arithmetic_intensity(self) -> float:
        """MACs for each element (weight or activation) that has to be moved at least once."""
        return self.macs / (self.parameters + self.input_elements + self.output_elements)


class WorkloadKind(StrEnum):
    """What a workload is of. The two in the middle are as public tables name them; see `search_spaces.signatures`."""

    OPERATOR = "operator"
    LAYER = "layer"
    BLOCK = "block"
    NETWORK = "network"


@dataclass(frozen=True, slots=True)
class Workload:
    """A fused operator, or a whole network, without names: equal signatures mean equal work.

    Attributes:
        signature: canonical JSON. Of an operator what it computes on: shapes, and bits as `search_spaces.quantisation`
            has them; of a network the digests of its operators and whose results each reads, -1 being the image.
        digest: SHA-256 of the signature.
        name: of the operator's first node, or of the network, where this one was met. It decides nothing.
    """

    kind: WorkloadKind
    signature: str
    digest: str
    name: str = field(compare=False)

    def to_json(self) -> dict[str, str]:
        return {"kind": str(self.kind), "signature": self.signature, "digest": self.digest, "name": self.name}


def macs(network: Network) -> int:
    shapes = infer_shapes(network)
    return sum(_layer_macs(node, shapes) for node in network.compute_nodes())


def parameters(network: Network) -> int:
    shapes = infer_shapes(network)
    return sum(_layer_parameters(node, shapes) for node in network.compute_nodes())


def size_bytes(network: Network) -> int:
    """Payload: weights at their bits, biases, and a scale per output channel of quantised weights, or a codebook."""
    shapes = infer_shapes(network)
    return sum(_operator_size_bytes(operator, shapes) for operator in fused_operators(network))


def activation_traffic_bytes(network: Network) -> int:
    """Bytes that the fused operators read and write, each tensor once for each operator that touches it."""
    stored = _tensor_bytes(network, infer_shapes(network))
    return sum(_moved_bytes(operator, stored) for operator in fused_operators(network))


def peak_activation_bytes(network: Network) -> int:
    """Most bytes of tensors that are alive at once: an operator's inputs and output, and all read later."""
    stored = _tensor_bytes(network, infer_shapes(network))
    return _peak_bytes(fused_operators(network), stored)


def memory_bytes(network: Network) -> int:
    """All that is in memory at once: `size_bytes` and `peak_activation_bytes`."""
    shapes, operators = infer_shapes(network), fused_operators(network)
    weights = sum(_operator_size_bytes(operator, shapes) for operator in operators)
    return weights + _peak_bytes(operators, _tensor_bytes(network, shapes))


def layer_costs(network: Network) -> tuple[LayerCost, ...]:
    """Costs of each conv and linear, in order."""
    shapes = infer_shapes(network)
    stored = _tensor_bytes(network, shapes)
    return tuple(
        _layer_cost(operator, shapes, stored)
        for operator in fused_operators(network)
        if operator.nodes[0].op in COMPUTE_OPS
    )


def workloads(network: Network) -> tuple[Workload, ...]:
    """The signature of each fused operator, in order; the same whether batch norms are folded or not."""
    return network_workloads(network)[1]


def network_workload(network: Network) -> Workload:
    """The signature of a whole network."""
    return network_workloads(network)[0]


def network_workloads(network: Network) -> tuple[Workload, tuple[Workload, ...]]:
    """Of a network as a whole, and of its operators in the order that they run in."""
    deployed = without_norms(network, foldable_norms(network))
    operators = fused_operators(deployed)
    described = _describe_operators(deployed, operators)
    parts = tuple(
        _workload_of(WorkloadKind.OPERATOR, operator.nodes[0].name, text)
        for operator, text in zip(operators, described, strict=True)
    )
    place = {operator.output: number for number, operator in enumerate(operators)}
    reads = [[place.get(name, -1) for name in operator.inputs] for operator in operators]
    text = _canonical({"operators": [part.digest for part in parts], "reads": reads})
    return _workload_of(WorkloadKind.NETWORK, network.name, text), parts


def symbolic_values(network: Network) -> dict[str, float]:
    """Every metric that needs neither weights nor a device."""
    shapes, operators = infer_shapes(network), fused_operators(network)
    stored = _tensor_bytes(network, shapes)
    layers = network.compute_nodes()
    return {
        Metric.MACS: sum(_layer_macs(node, shapes) for node in layers),
        Metric.PARAMETERS: sum(_layer_parameters(node, shapes) for node in layers),
        Metric.SIZE_BYTES: sum(_operator_size_bytes(operator, shapes) for operator in operators),
        Metric.ACTIVATION_TRAFFIC_BYTES: sum(_moved_bytes(operator, stored) for operator in operators),
        Metric.PEAK_ACTIVATION_BYTES: _peak_bytes(operators, stored),
    }


def fused_operators(network: Network) -> tuple[FusedOperator, ...]:
    """The operators that run, in order, without the network's input and flattens."""
    readers = network.consumers()
    chains: dict[str, list[Node]] = {}  # by the chain's last tensor, in order of the first nodes
    same_as: dict[str, str] = {}
    order: list[list[Node]] = []
    for node in network.nodes:
        if node.op is Op.FLATTEN:
            same_as[node.name] = same_as.get(node.inputs[0], node.inputs[0])
        elif node.op in FUSED_OPS and node.inputs[0] in chains and len(readers[node.inputs[0]]) == 1:
            chain = chains.pop(node.inputs[0])
            chain.append(node)
            chains[node.name] = chain
        elif node.op is not Op.INPUT:
            chains[node.name] = [node]
            order.append(chains[node.name])
    return tuple(FusedOperator(tuple(chain), _unflattened(chain[0].inputs, same_as)) for chain in order)


def _unflattened(inputs: tuple[str, ...], same_as: Mapping[str, str]) -> tuple[str, ...]:
    if same_as.keys().isdisjoint(inputs):  # nearly always, and the tuple that is there costs nothing
        return inputs
    return tuple(same_as.get(name, name) for name in inputs)


def tensor_bits(network: Network) -> dict[str, int]:
    """Bits that each tensor is stored at, by the convention above."""
    bits = dict.fromkeys((node.name for node in network.nodes), 0)
    bits[network.output] = FLOAT_BITS
    for node in reversed(network.nodes):
        own = bits[node.name] or FLOAT_BITS  # a tensor that nobody reads has no reason to be quantised
        bits[node.name] = own
        wanted = node.precision.activation_bits if node.op in COMPUTE_OPS else own
        for name in node.inputs:
            bits[name] = max(bits[name], wanted)
    return bits


def weight_words(precision: Precision, channels: int) -> int:
    """Numbers that weights in few bits come with: the values of their codebook, or a scale per output channel."""
    if precision.is_codebook:
        return int(2**precision.weight_bits)
    return channels if precision.weight_bits < FLOAT_BITS else 0


def _layer_parameters(node: Node, shapes: Mapping[str, Shape]) -> int:
    inputs, outputs = shapes[node.inputs[0]][0], shapes[node.name][0]
    return node.kernel[0] * node.kernel[1] * (inputs // node.groups) * outputs


def _layer_macs(node: Node, shapes: Mapping[str, Shape]) -> int:
    return _layer_parameters(node, shapes) * math.prod(shapes[node.name][1:])


def _operator_size_bytes(operator: FusedOperator, shapes: Mapping[str, Shape]) -> int:
    first, *fused = operator.nodes
    total = first.body_bytes
    if first.op in COMPUTE_OPS:
        channels, weight_bits = shapes[first.name][0], first.precision.weight_bits
        total = -(-_layer_parameters(first, shapes) * weight_bits // 8)
        folds = bool(fused) and fused[0].op is Op.BATCH_NORM
        total += WORD_BYTES * channels * (first.bias or folds)
        total += WORD_BYTES * weight_words(first.precision, channels)
        fused = fused[folds:]
    norms = [node for node in (first, *fused) if node.op is Op.BATCH_NORM]
    return total + sum(2 * WORD_BYTES * shapes[node.name][0] for node in norms)  # scale and shift


def _tensor_bytes(network: Network, shapes: Mapping[str, Shape]) -> dict[str, int]:
    bits = tensor_bits(network)
    return {name: -(-math.prod(shape) * bits[name] // 8) for name, shape in shapes.items()}


def _moved_bytes(operator: FusedOperator, stored: Mapping[str, int]) -> int:
    return sum(stored[name] for name in operator.inputs) + stored[operator.output]


def _peak_bytes(operators: tuple[FusedOperator, ...], stored: Mapping[str, int]) -> int:
    last_reader = {name: step for step, operator in enumerate(operators) for name in operator.inputs}
    made = {operator.output for operator in operators}
    total = sum(stored[name] for name in last_reader if name not in made)  # the network's input
    peak = total
    for step, operator in enumerate(operators):
        total += stored[operator.output]
        peak = max(peak, total)
        released = {name for name in operator.inputs if last_reader[name] == step}
        total -= sum(stored[name] for name in released)
    return peak


def _layer_cost(operator: FusedOperator, shapes: Mapping[str, Shape], stored: Mapping[str, int]) -> LayerCost:
    node, source = operator.nodes[0], operator.inputs[0]
    return LayerCost(
        name=node.name,
        block=node.block,
        macs=_layer_macs(node, shapes),
        parameters=_layer_parameters(node, shapes),
        size_bytes=_operator_size_bytes(operator, shapes),
        input_elements=math.prod(shapes[source]),
        output_elements=math.prod(shapes[operator.output]),
        input_bytes=stored[source],
        output_bytes=stored[operator.output],
    )


def _describe_operators(network: Network, operators: tuple[FusedOperator, ...]) -> Iterator[str]:
    """The signature of each operator of a network as it is deployed."""
    shapes, plan = infer_shapes(network), plan_quantisation(network)
    for operator in operators:
        node = operator.nodes[0]
        inputs = [
            [*shapes[name], plan.bits[plan.root[name]] if plan.reads_quantised(node.name, name) else FLOAT_BITS]
            for name in operator.inputs
        ]
        root = plan.root[operator.output]
        made = plan.bits[root] if root in plan.integer_tensors else FLOAT_BITS
        described = {
            "ops": [str(fused.op) for fused in operator.nodes],
            "inputs": inputs,
            "output": [*shapes[operator.output], made],
            "kernel": node.kernel,
            "stride": node.stride,
            "dilation": node.dilation,
            "padding": node.padding,
            "groups": node.groups,
            "bias": node.bias,
            "precision": str(node.precision),
            "body": node.body,
        }
        yield _canonical(described)


def _canonical(described: Mapping[str, object]) -> str:
    return json.dumps(described, sort_keys=True, separators=(",", ":"))


def _workload_of(kind: WorkloadKind, name: str, signature: str) -> Workload:
    return Workload(kind, signature, hashlib.sha256(signature.encode()).hexdigest(), name)
