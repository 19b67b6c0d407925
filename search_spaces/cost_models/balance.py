"""The balance of work and reuse in grouped convolutions: what a conv takes by its channels per group G, and the best G.

Our reconstruction, in the spirit of E2GC (Jha et al., arXiv 2006.15100), whose own model we have not seen. A conv with
K x K taps does K^2 G multiply-accumulates for each output, and moves 2 / (K^2 G) values for each of those (as many
channels in as out, stride 1): many groups do little and reuse little. The objective weighs one against the other,

    T(G) = a K^2 G + b 2 / (K^2 G),    least at G* = sqrt(2 b / a) / K^2.

With a and b fitted to a device it is a curve with three constants, not a law: kernels that a runtime has for one group
size only, such as depthwise ones, do not lie on it. It must not know any device.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from search_spaces.network import Network, Node, Op, Shape, infer_shapes
from search_spaces.signatures import LayerSignature, OperatorSignature, read_signature


@dataclass(frozen=True, slots=True)
class GroupedConv:
    """The sizes of a conv.

    Attributes:
        inputs, outputs: channels M and N.
        taps: K^2, kernel height times width.
        input_pixels, pixels: places of the map that it reads and of the one that it makes.
        group_size: G, channels per group.
    """

    inputs: int
    outputs: int
    taps: int
    input_pixels: int
    pixels: int
    group_size: int

    @property
    def macs(self) -> int:
        return self.parameters * self.pixels

    @property
    def parameters(self) -> int:
        """Weights."""
        return self.taps * self.group_size * self.outputs

    @property
    def activations(self) -> int:
        """Values of the input and of the output."""
        return self.inputs * self.input_pixels + self.outputs * self.pixels

    @property
    def arithmetic_intensity(self) -> float:
        """MACs for each value, of weights or activations, that has to be moved at least once."""
        return self.macs / (self.parameters + self.activations)

    @property
    def reuse_loss(self) -> float:
        """Activations moved for each MAC: 2 / (K^2 G) where inputs are as many as outputs, at stride 1."""
        return self.activations / self.macs


def grouped_convs(network: Network) -> dict[str, GroupedConv]:
    """The convs of a network that have more than one group, by name, in order."""
    shapes = infer_shapes(network)
    return {
        node.name: _conv_of(node, shapes[node.inputs[0]], shapes[node.name])
        for node in network.nodes
        if node.op is Op.CONV and node.groups > 1
    }


def _conv_of(node: Node, source: Shape, target: Shape) -> GroupedConv:
    taps, size = math.prod(node.kernel), source[0] // node.groups
    return GroupedConv(source[0], target[0], taps, math.prod(source[1:]), math.prod(target[1:]), size)


def conv_in(signature: str) -> GroupedConv | None:
    """The conv that a workload of the measurement database is of, or begins with; None where there is none.

    Raises:
        SignatureError: the text is no signature.
    """
    parts = read_signature(signature).parts
    if isinstance(parts, OperatorSignature) and parts.ops[0] is Op.CONV:
        source, target = parts.inputs[0][:-1], parts.output[:-1]  # the last number is of bits
    elif isinstance(parts, LayerSignature) and parts.layer is Op.CONV:
        source, target = parts.input, parts.output
    else:
        return None
    sizes = (math.prod(parts.kernel), math.prod(source[1:]), math.prod(target[1:]))
    return GroupedConv(source[0], target[0], *sizes, source[0] // parts.groups)


@dataclass(frozen=True, slots=True)
class Balance:
    """The objective with its constants, in seconds or in joules. All three are 0 or more.

    Attributes:
        overhead: of a conv, whatever its sizes.
        per_mac: a, of a multiply-accumulate.
        per_loss: b, of each output for each activation that has to be moved for one of its MACs.
    """

    overhead: float
    per_mac: float
    per_loss: float

    def value(self, conv: GroupedConv) -> float:
        """What the conv takes."""
        constants = (self.overhead, self.per_mac, self.per_loss)
        return sum(constant * term for constant, term in zip(constants, terms(conv), strict=True))

    def best_group_size(self, taps: int) -> float:
        """G*, of convs with as many channels in as out and stride 1; infinite where MACs cost nothing."""
        return math.sqrt(2 * self.per_loss / self.per_mac) / taps if self.per_mac > 0 else math.inf

    def best_of(self, group_sizes: Sequence[int], taps: int) -> int:
        """The group size with the least objective: T goes by the ratio to G* alone, so the nearest one as a ratio."""
        return min(group_sizes, key=lambda size: self.per_mac * taps * size + self.per_loss * 2 / (taps * size))


def terms(conv: GroupedConv) -> tuple[float, float, float]:
    """What the three constants are multiplied by."""
    return 1.0, float(conv.macs), conv.outputs * conv.pixels * conv.reuse_loss


def relative_errors(balance: Balance, measured: Iterable[tuple[GroupedConv, float]]) -> list[float]:
    """How far each figure is from the curve, as a share of the figure."""
    return [abs(balance.value(conv) - value) / value for conv, value in measured]
