"""The torch interpreter of a Network: computes it in floating point, for training and for looking inside.

It ignores precision: what bits do to accuracy is decided by the file that `workers.onnx_writer` writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # everybody calls it F
from torch import Tensor

from search_spaces.network import Network, Node, Op
from workers import opaque
from workers.weights import BATCH_NORM_EPSILON, Weights, check_weights

BATCH_NORM_MOMENTUM = 0.1
"""How much of the running statistics each training batch replaces."""

_RUNNING = (".running_mean", ".running_var")


@dataclass(frozen=True, slots=True)
class _Step:
    """A node to compute, and the tensors that nobody needs afterwards."""

    node: Node
    dead: tuple[str, ...]


class HasWeights(Protocol):
    """What an operator needs of whoever owns its weights."""

    training: bool

    def weight(self, name: str) -> Tensor | None:
        """The array called `<node>.<part>`; None when the node has no such part."""


class NetworkModule(torch.nn.Module):
    """A Network with weights as a torch module: (N, C, H, W), normalised, to the output tensor (N, classes)."""

    def __init__(self, network: Network, weights: Mapping[str, np.ndarray]) -> None:
        super().__init__()
        self.network = network
        self._registered: dict[str, str] = {}
        self._plans: dict[tuple[str, ...], list[_Step]] = {}
        for name, array in weights.items():
            self._register(name, torch.from_numpy(array.copy()))

    def _register(self, name: str, value: Tensor) -> None:
        registered = name.replace(".", "/")  # torch reserves the dot for nested modules
        self._registered[name] = registered
        if name.endswith(_RUNNING):
            self.register_buffer(registered, value)
        else:
            self.register_parameter(registered, torch.nn.Parameter(value))

    def weight(self, name: str) -> Tensor | None:
        """The parameter or buffer called `<node>.<part>`; None when the node has no such part."""
        registered = self._registered.get(name)
        return None if registered is None else getattr(self, registered)

    def named_weights(self) -> dict[str, Tensor]:
        """All parameters and buffers, as they are now, by `<node>.<part>`."""
        return {name: getattr(self, registered) for name, registered in self._registered.items()}

    def forward(self, images: Tensor) -> Tensor:
        return self.observe(images, [self.network.output])[self.network.output]

    def observe(self, images: Tensor, outputs: Sequence[str]) -> dict[str, Tensor]:
        """Compute only what the named tensors need, and return these.

        Raises:
            KeyError: a name is no tensor of the network.
        """
        tensors: dict[str, Tensor] = {}
        for step in self._plan(tuple(outputs)):
            if step.node.op is Op.INPUT:
                tensors[step.node.name] = images
            else:
                inputs = self.read(step.node, tensors)
                tensors[step.node.name] = OPERATORS[step.node.op](self, step.node, inputs)
            for name in step.dead:
                del tensors[name]
        return {name: tensors[name] for name in outputs}

    def read(self, node: Node, tensors: dict[str, Tensor]) -> list[Tensor]:
        """What a node is fed, of what has been computed; another interpreter may feed it something else."""
        return [tensors[name] for name in node.inputs]

    def _plan(self, outputs: tuple[str, ...]) -> list[_Step]:
        if outputs not in self._plans:
            self._plans[outputs] = _make_plan(self.network, outputs)
        return self._plans[outputs]


def _make_plan(network: Network, outputs: tuple[str, ...]) -> list[_Step]:
    """Walk backwards: the first reader seen of a tensor is the last to need it."""
    unknown = set(outputs) - network.by_name().keys()
    if unknown:
        raise KeyError(f"{min(unknown)!r} is no tensor of {network.name}")
    needed = set(outputs)
    steps: list[_Step] = []
    for node in reversed(network.nodes):
        if node.name in needed:
            steps.append(_Step(node, tuple(name for name in dict.fromkeys(node.inputs) if name not in needed)))
            needed.update(node.inputs)
    return steps[::-1]


def build_module(network: Network, weights: Mapping[str, np.ndarray]) -> NetworkModule:
    """A module with copies of `weights`, its convs stored channels last.

    Raises:
        WeightsError: `weights` are not those of `network`.
    """
    check_weights(network, weights)
    module = NetworkModule(network, weights)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form
    return module


def read_weights(module: NetworkModule) -> Weights:
    """The inverse of `build_module`, exact: copies of the module's weights as they are now."""
    return {
        name: np.ascontiguousarray(value.detach().cpu().numpy()).copy()
        for name, value in module.named_weights().items()
    }


def _kernel(weights: HasWeights, node: Node) -> Tensor:
    kernel = weights.weight(f"{node.name}.weight")
    assert kernel is not None, f"{node.name} has no weight"
    return kernel


def _conv(weights: HasWeights, node: Node, inputs: list[Tensor]) -> Tensor:
    weight, bias = _kernel(weights, node), weights.weight(f"{node.name}.bias")
    top, left, bottom, right = node.padding
    if (top, left) == (bottom, right):
        return F.conv2d(inputs[0], weight, bias, node.stride, (top, left), node.dilation, node.groups)
    padded = F.pad(inputs[0], (left, right, top, bottom))
    return F.conv2d(padded, weight, bias, node.stride, 0, node.dilation, node.groups)


def _linear(weights: HasWeights, node: Node, inputs: list[Tensor]) -> Tensor:
    return F.linear(inputs[0], _kernel(weights, node), weights.weight(f"{node.name}.bias"))


def _batch_norm(weights: HasWeights, node: Node, inputs: list[Tensor]) -> Tensor:
    mean, variance, scale, shift = (
        weights.weight(f"{node.name}.{part}") for part in ("running_mean", "running_var", "weight", "bias")
    )
    momentum, epsilon = BATCH_NORM_MOMENTUM, BATCH_NORM_EPSILON
    return F.batch_norm(inputs[0], mean, variance, scale, shift, weights.training, momentum, epsilon)


def _shuffle(_weights: HasWeights, node: Node, inputs: list[Tensor]) -> Tensor:
    """Channel c of group g becomes channel c * groups + g (ShuffleNet)."""
    batch, channels, *rest = inputs[0].shape
    return inputs[0].reshape(batch, node.groups, channels // node.groups, *rest).transpose(1, 2).flatten(1, 2)


def _slice(_weights: HasWeights, node: Node, inputs: list[Tensor]) -> Tensor:
    assert node.channels is not None, "a slice has as many channels as it says"
    return inputs[0].narrow(1, node.start, node.channels)


def _pad(_weights: HasWeights, node: Node, inputs: list[Tensor]) -> Tensor:
    top, left, bottom, right = node.padding
    return F.pad(inputs[0], (left, right, top, bottom))


def _max_pool(_weights: HasWeights, node: Node, inputs: list[Tensor]) -> Tensor:
    top, left, bottom, right = node.padding
    padded = F.pad(inputs[0], (left, right, top, bottom), value=-torch.inf) if any(node.padding) else inputs[0]
    return F.max_pool2d(padded, node.kernel, node.stride)


def _average_pool(_weights: HasWeights, node: Node, inputs: list[Tensor]) -> Tensor:
    """Padding is not counted, as with ONNX's `count_include_pad=0`."""
    if not any(node.padding):
        return F.avg_pool2d(inputs[0], node.kernel, node.stride)
    top, left, bottom, right = node.padding
    margins = (left, right, top, bottom)
    total = F.avg_pool2d(F.pad(inputs[0], margins), node.kernel, node.stride, divisor_override=1)
    cells = F.pad(torch.ones_like(inputs[0][:1, :1]), margins)
    return total / F.avg_pool2d(cells, node.kernel, node.stride, divisor_override=1)


OPERATORS: dict[Op, Callable[[HasWeights, Node, list[Tensor]], Tensor]] = {
    Op.CONV: _conv,
    Op.LINEAR: _linear,
    Op.BATCH_NORM: _batch_norm,
    Op.RELU: lambda _weights, _node, inputs: F.relu(inputs[0]),
    Op.RELU6: lambda _weights, _node, inputs: F.relu6(inputs[0]),
    Op.SIGMOID: lambda _weights, _node, inputs: torch.sigmoid(inputs[0]),
    Op.HARD_SIGMOID: lambda _weights, _node, inputs: F.hardsigmoid(inputs[0]),
    Op.SWISH: lambda _weights, _node, inputs: F.silu(inputs[0]),
    Op.HARD_SWISH: lambda _weights, _node, inputs: F.hardswish(inputs[0]),
    Op.ADD: lambda _weights, _node, inputs: reduce(torch.add, inputs),
    Op.MULTIPLY: lambda _weights, _node, inputs: inputs[0] * inputs[1],
    Op.CONCAT: lambda _weights, _node, inputs: torch.cat(inputs, 1),
    Op.SLICE: _slice,
    Op.SHUFFLE: _shuffle,
    Op.PAD: _pad,
    Op.MAX_POOL: _max_pool,
    Op.AVERAGE_POOL: _average_pool,
    Op.GLOBAL_AVERAGE_POOL: lambda _weights, _node, inputs: inputs[0].mean((2, 3), keepdim=True),
    Op.FLATTEN: lambda _weights, _node, inputs: inputs[0].flatten(1),
    Op.POINTWISE: lambda _weights, node, inputs: opaque.compute(node.body, inputs),
    Op.OPAQUE: lambda _weights, node, inputs: opaque.compute(node.body, inputs),
}
"""Each computes one node's output from its inputs; for code that walks a network itself."""
