"""Gradients of a network's loss over labelled images, and products of the loss's Hessian with them.

The parameters that loss is a function of are the weights of convs and linears. Batch norms apply their running
statistics and are held fixed, as are biases (Lubana and Dick, arXiv 2009.11839, score weights alone). So norms are
folded while it is computed, which saves a third of the time; gradients are those of the raw weights all the same.

The Hessian's product with g is the derivative of the gradient along g, exactly: gradients of dual numbers (Pearlmutter
1994). Torch's double backward gives the same and takes 1.7 times as long, as it goes through depthwise convs group by
group.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # everybody calls it F
from torch import Tensor
from torch.autograd import forward_ad

from search_spaces.network import Network, Node, Op, infer_shapes
from search_spaces.quantisation import foldable_norms
from workers import opaque
from workers.fold import batch_norm_affine, fold_batch_norms
from workers.progress import do_nothing
from workers.splits import Split, normalise
from workers.torch_network import OPERATORS, HasWeights
from workers.weights import Weights

Gradients = dict[str, np.ndarray]
"""By conv and linear, of its raw weight and in its shape; float32."""

USUAL_IMAGES = 2560
"""As many as Lubana and Dick take: 20 batches of 128."""

_LARGEST_BATCH = 128
_BATCH_BYTES = 2**29
"""Of the tensors that a batch leaves for the way back."""


class NoGradientError(ValueError):
    """The network has a part that no gradient passes."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Labelled images, and how much each counts.

    Attributes:
        images: uint8 (n, C, H, W).
        labels: int64 (n) classes, or float32 (n) values.
        shares: float32 (n), 1 in all.
    """

    images: np.ndarray
    labels: np.ndarray
    shares: np.ndarray


def draw_first(split: Split, count: int = USUAL_IMAGES) -> Sample:
    """The first images of a split, whose order is as good as random; all count alike."""
    rows = np.arange(min(count, len(split)))
    return _sample(split, rows, np.full(len(rows), 1 / len(rows)))


def draw_balanced(split: Split, count: int = USUAL_IMAGES) -> Sample:
    """The first images of each class, at most `count` in all; every class counts alike, however many it has.

    Values are no classes: of these the first are drawn.
    """
    if split.labels.dtype.kind != "i":
        return draw_first(split, count)
    classes, sizes = np.unique(split.labels, return_counts=True)
    each = max(count // len(classes), 1)
    rows = np.sort(np.concatenate([np.flatnonzero(split.labels == label)[:each] for label in classes[:count]]))
    found = np.searchsorted(classes, split.labels[rows])
    shares = 1 / (min(len(classes), count) * np.minimum(sizes[found], each))
    return _sample(split, rows, shares)


def _sample(split: Split, rows: np.ndarray, shares: np.ndarray) -> Sample:
    return Sample(*split.take(rows), shares.astype(np.float32))


def loss_gradient(
    network: Network,
    weights: Weights,
    sample: Sample,
    temperature: float = 1.0,
    yield_to: Callable[[], None] = do_nothing,
) -> Gradients:
    """The gradient g of the mean loss.

    The same arguments give the same bits on the same machine with the same number of torch threads.

    Args:
        temperature: what logits are divided by before the cross entropy; values know none.
        yield_to: called between batches.

    Raises:
        NoGradientError: the network has a part that is kept as it is.
    """
    graph = _Graph(network, weights)
    for batch in _batches(graph, sample, kept=1):
        torch.autograd.backward(_loss(graph, batch, temperature))
        yield_to()
    return {
        layer: np.zeros(leaf.shape, np.float32) if leaf.grad is None else leaf.grad.numpy().copy()
        for layer, leaf in graph.leaves.items()
    }


def hessian_gradient(
    network: Network,
    weights: Weights,
    sample: Sample,
    temperature: float = 1.0,
    yield_to: Callable[[], None] = do_nothing,
) -> tuple[Gradients, Gradients]:
    """The gradient g of the mean loss, and Hg, in a second pass over the same images.

    Arguments and errors are those of `loss_gradient`.
    """
    gradient = loss_gradient(network, weights, sample, temperature, yield_to)
    graph = _Graph(network, weights)
    totals = {layer: torch.zeros_like(leaf) for layer, leaf in graph.leaves.items()}
    along = {layer: torch.from_numpy(gradient[layer]).to(leaf) for layer, leaf in graph.leaves.items()}
    leaves = graph.leaves
    for batch in _batches(graph, sample, kept=3):
        with forward_ad.dual_level():
            graph.leaves = _duals(leaves, along)
            loss = _loss(graph, batch, temperature)
            slopes = torch.autograd.grad(loss, list(graph.leaves.values()), materialize_grads=True)
            for layer, slope in zip(leaves, slopes, strict=True):
                tangent = forward_ad.unpack_dual(slope).tangent  # type: ignore[no-untyped-call]
                if tangent is not None:  # None where the loss does not depend on the layer, or linearly
                    totals[layer] += tangent.detach()
        yield_to()
    return gradient, {layer: total.numpy().copy() for layer, total in totals.items()}


def _duals(leaves: dict[str, Tensor], along: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each leaf with its derivative along a direction."""
    with warnings.catch_warnings():
        # Of torch itself, which compiles something of its own at the first dual number.
        warnings.filterwarnings("ignore", ".*torch.jit.script.*", DeprecationWarning)
        dual = forward_ad.make_dual
        return {layer: dual(leaf, along[layer]) for layer, leaf in leaves.items()}  # type: ignore[no-untyped-call]


# --- the network as a function of its raw weights ---------------------------------------------------------------


class _Graph:
    """A network with its batch norms folded, as a function of the raw weights of its convs and linears."""

    training = False

    def __init__(self, network: Network, weights: Weights) -> None:
        _check_differentiable(network)
        self.network, folded = fold_batch_norms(network, weights)
        self._fixed = {name: torch.from_numpy(array) for name, array in folded.items()}
        self.leaves = {node.name: _leaf(weights[f"{node.name}.weight"]) for node in network.compute_nodes()}
        self._scales = {
            layer: _per_filter(batch_norm_affine(norm, weights)[0], self.leaves[layer])
            for layer, norm in foldable_norms(network).items()
        }

    def weight(self, name: str) -> Tensor | None:
        """As `HasWeights` has it."""
        layer, _, part = name.rpartition(".")
        if part != "weight" or layer not in self.leaves:
            return self._fixed.get(name)
        scale = self._scales.get(layer)
        return self.leaves[layer] if scale is None else self.leaves[layer] * scale

    def __call__(self, images: Tensor) -> Tensor:
        tensors: dict[str, Tensor] = {}
        for node in self.network.nodes:
            inputs = [tensors[name] for name in node.inputs]
            tensors[node.name] = images if node.op is Op.INPUT else _OPERATORS[node.op](self, node, inputs)
        return tensors[self.network.output]


def _check_differentiable(network: Network) -> None:
    for node in network.nodes:
        if node.body and not opaque.is_differentiable(node.body):
            raise NoGradientError(
                f"no gradient passes {node.name}, which is kept as it is: "
                "rank the channels of this network by something that needs none, such as l1 or filter_l2"
            )


def _leaf(weight: np.ndarray) -> Tensor:
    leaf = torch.from_numpy(weight)
    if leaf.dim() == 4:
        leaf = leaf.clone(memory_format=torch.channels_last)
    return leaf.detach().clone().requires_grad_()


def _per_filter(scale: np.ndarray, weight: Tensor) -> Tensor:
    return torch.from_numpy(scale).view(-1, *[1] * (weight.dim() - 1))


def _norm_apart(weights: HasWeights, node: Node, inputs: list[Tensor]) -> Tensor:
    """A batch norm that is not folded: what it does at inference."""
    parts = ("weight", "bias", "running_mean", "running_var")
    arrays = {f"{node.name}.{part}": _known(weights, f"{node.name}.{part}").numpy() for part in parts}
    scale, shift = (torch.from_numpy(array) for array in batch_norm_affine(node.name, arrays))
    shape = (-1, *[1] * (inputs[0].dim() - 2))
    return inputs[0] * scale.view(shape) + shift.view(shape)


def _known(weights: HasWeights, name: str) -> Tensor:
    array = weights.weight(name)
    assert array is not None, f"{name} is missing"
    return array


_OPERATORS: dict[Op, Callable[[HasWeights, Node, list[Tensor]], Tensor]] = OPERATORS | {
    Op.BATCH_NORM: _norm_apart,
    # Torch's own has no second derivative.
    Op.HARD_SIGMOID: lambda _weights, _node, inputs: F.relu6(inputs[0] + 3) / 6,
}


# --- the loss ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    images: Tensor
    labels: Tensor
    shares: Tensor
    spread: float


def _batches(graph: _Graph, sample: Sample, kept: int) -> Iterator[_Batch]:
    """Args: kept: numbers that are kept for each number that the network computes."""
    size = _batch_size(graph.network, kept)
    spread = _spread(sample.labels)
    for first in range(0, len(sample.labels), size):
        rows = slice(first, first + size)
        images = torch.from_numpy(normalise(sample.images[rows], graph.network.input))
        yield _Batch(
            images.contiguous(memory_format=torch.channels_last),
            torch.from_numpy(sample.labels[rows]),
            torch.from_numpy(sample.shares[rows]),
            spread,
        )


def _batch_size(network: Network, kept: int) -> int:
    image_bytes = 4 * sum(math.prod(shape) for shape in infer_shapes(network).values())
    return min(max(_BATCH_BYTES // (image_bytes * kept), 1), _LARGEST_BATCH)


def _spread(labels: np.ndarray) -> float:
    """What errors of values are told in, as in training."""
    return 1.0 if labels.dtype.kind == "i" else float(labels.std(dtype=float)) or 1.0


def _loss(graph: _Graph, batch: _Batch, temperature: float) -> Tensor:
    """The batch's part of the mean loss: cross entropy of classes, squared error of values."""
    outputs = graph(batch.images)
    if batch.labels.dtype.is_floating_point:
        return ((outputs[:, 0] - batch.labels) / batch.spread) ** 2 @ batch.shares
    if outputs.shape[1] == 1:
        outputs = torch.cat([torch.zeros_like(outputs), outputs], dim=1)
    return F.cross_entropy(outputs / temperature, batch.labels, reduction="none") @ batch.shares
