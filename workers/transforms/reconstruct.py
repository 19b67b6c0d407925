"""Gives a pruned network back what it can of the base's function, without training.

Layer by layer in topological order, each layer's weights are fitted by ridge least squares, from what
the pruned network feeds it to what the base's layer puts out (AMC, He et al. 2018, section 3; the base's
outputs stay the targets, so errors do not add up). The intercept goes into the batch norm's mean. Uniform
50% pruning of the demo's MobileNet-V1 (.90) leaves .10, with batch norms recalibrated .52, with this .86.

Layers that still compute exactly what the base's compute are left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from search_spaces.apply import structure_of
from search_spaces.network import COMPUTE_OPS, Network, Node, Op, infer_shapes
from search_spaces.spec import Reconstruct
from workers.fold import batch_norm_affine, fold_batch_norms
from workers.torch_network import OPERATORS
from workers.transforms.prune import Kept
from workers.transforms.regroup import is_exact
from workers.transforms.sample import Window, columns_to_filters, draw_windows, filters_to_columns, sample_inputs
from workers.weights import Weights

RIDGE = 1e-3
"""Relative to the mean of the Gram matrix's diagonal. It shrinks towards the sliced weights, not towards zero."""

ROWS_PER_UNKNOWN = 32
MIN_ROWS = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """What the base does on the calibration images, at the sampled positions; made once per base.

    Attributes:
        images: float32 (count, channels, height, width), normalised.
        windows: by conv, where it is sampled; a linear layer is sampled whole.
        outputs: by layer (rows, channels), before its batch norm.
    """

    images: np.ndarray
    windows: Mapping[str, Window]
    outputs: Mapping[str, torch.Tensor]


def observe(network: Network, weights: Weights, images: np.ndarray) -> Observed:
    """Run the base on normalised images, float32 (count, channels, height, width)."""
    windows = draw_windows(network, len(images))
    outputs: dict[str, torch.Tensor] = {}

    def sample(node: Node, source: torch.Tensor) -> None:
        rows = sample_inputs(node, source, windows.get(node.name), source.numel())
        outputs[node.name] = _layer_outputs(node, rows, weights)

    _walk(network, weights, images, sample)
    return Observed(images, windows, outputs)


def reconstruct(
    base: Network, applied: Network, weights: Weights, kept: Kept, observed: Observed, method: Reconstruct
) -> Weights:
    """Weights of the applied network, fitted to what the base does.

    Args:
        weights: the base's, sliced to `kept` and regrouped.
    """
    if method is Reconstruct.NONE:
        return weights
    fitted = dict(weights)
    exact = _exact_layers(base, applied, kept)
    norms = _norm_of(applied)

    def fit(node: Node, source: torch.Tensor) -> None:
        if node.name in exact:
            return
        norm, window = norms.get(node.name), observed.windows.get(node.name)
        if method is Reconstruct.LEAST_SQUARES:
            channels = torch.from_numpy(kept[node.name])
            _fit_layer(node, norm, source, window, observed.outputs[node.name], channels, fitted)
        elif norm is not None:
            _recalibrate(node, norm, source, window, fitted)

    _walk(applied, fitted, observed.images, fit)
    return fitted


def _exact_layers(base: Network, applied: Network, kept: Kept) -> set[str]:
    """Nodes whose kept outputs are the base's own: neither they nor any before them lost an input or had groups cut."""
    shapes, depthwise = infer_shapes(base), structure_of(base).depthwise
    groups = {layer.name: layer.groups for layer in base.compute_nodes()}
    exact: set[str] = set()
    for node in applied.nodes:
        mixes = node.op in COMPUTE_OPS and node.name not in depthwise
        if mixes and not is_exact(groups[node.name], node.groups):
            continue
        if all(name in exact and not (mixes and len(kept[name]) < shapes[name][0]) for name in node.inputs):
            exact.add(node.name)
    return exact


def _norm_of(network: Network) -> dict[str, str]:
    """The batch norm that alone reads a layer's output, by layer: the one that is folded."""
    readers = network.consumers()
    return {
        layer.name: readers[layer.name][0].name
        for layer in network.compute_nodes()
        if len(readers[layer.name]) == 1 and readers[layer.name][0].op is Op.BATCH_NORM
    }


def _walk(
    network: Network, weights: Weights, images: np.ndarray, before_layer: Callable[[Node, torch.Tensor], None]
) -> None:
    """Run a network, batch norms folded, and call `before_layer` with each layer and its input.

    `before_layer` may replace that layer's entries in `weights`, and those of its batch norm.
    """
    folded, _ = fold_batch_norms(network, weights)
    norms = _norm_of(network)
    own = {node.name for node in folded.nodes if node.op in (*COMPUTE_OPS, Op.ADD)}  # never a view of another tensor
    readers = {name: len(nodes) for name, nodes in folded.consumers().items()}
    unread = dict(readers)
    batch = torch.from_numpy(images).contiguous(memory_format=torch.channels_last)
    tensors: dict[str, torch.Tensor] = {}
    with torch.inference_mode():
        for node in folded.nodes:
            inputs = [tensors[name] for name in node.inputs]
            if node.op in COMPUTE_OPS:
                before_layer(node, inputs[0])
            # Another reader, also an earlier one, may hold a view of the same memory.
            in_place = node.op is Op.RELU and node.inputs[0] in own and readers[node.inputs[0]] == 1
            tensors[node.name] = batch if node.op is Op.INPUT else _compute(node, inputs, norms, weights, in_place)
            for name in node.inputs:
                unread[name] -= 1
                if unread[name] == 0:
                    del tensors[name]


def _compute(
    node: Node, inputs: list[torch.Tensor], norms: Mapping[str, str], weights: Weights, in_place: bool
) -> torch.Tensor:
    if in_place:
        return inputs[0].relu_()  # memory traffic is half of the time
    return OPERATORS[node.op](_folded(node.name, norms.get(node.name), weights), node, inputs)


@dataclass
class _NodeWeights:
    """What the torch interpreter asks for the weights of one node."""

    tensors: Mapping[str, torch.Tensor]
    training: bool = False

    def weight(self, name: str) -> torch.Tensor | None:
        return self.tensors.get(name)


def _folded(name: str, norm: str | None, weights: Weights) -> _NodeWeights:
    parts = ("weight", "bias", "running_mean", "running_var")
    own = {f"{name}.{part}": weights[f"{name}.{part}"] for part in parts if f"{name}.{part}" in weights}
    if norm is not None:
        scale, shift = batch_norm_affine(norm, weights)
        weight, bias = own[f"{name}.weight"], own.get(f"{name}.bias", np.float32(0))
        own[f"{name}.weight"] = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
        own[f"{name}.bias"] = shift + bias * scale
    return _NodeWeights({key: torch.from_numpy(value) for key, value in own.items()})


def _layer_outputs(node: Node, rows: torch.Tensor, weights: Weights) -> torch.Tensor:
    """(rows, channels) of a layer at its sampled rows, before its batch norm."""
    outputs = rows @ filters_to_columns(node, torch.from_numpy(weights[f"{node.name}.weight"]))
    flat = outputs.transpose(0, 1).reshape(rows.shape[1], -1)
    bias = weights.get(f"{node.name}.bias")
    return flat if bias is None else flat + torch.from_numpy(bias)


def _recalibrate(node: Node, norm: str, source: torch.Tensor, window: Window | None, weights: Weights) -> None:
    """Set a batch norm's statistics in `weights` to those of the pruned network, at the sampled positions."""
    rows = sample_inputs(node, source, window, source.numel())
    variance, mean = torch.var_mean(_layer_outputs(node, rows, weights), dim=0)
    weights[f"{norm}.running_mean"], weights[f"{norm}.running_var"] = mean.numpy(), variance.numpy()


def _fit_layer(
    node: Node,
    norm: str | None,
    source: torch.Tensor,
    window: Window | None,
    target: torch.Tensor,
    channels: torch.Tensor,
    weights: Weights,
) -> None:
    """Replace a layer's filters in `weights`, and where the intercept goes: its batch norm's mean or its bias."""
    weight = torch.from_numpy(weights[f"{node.name}.weight"])
    rows = sample_inputs(node, source, window, max(MIN_ROWS, ROWS_PER_UNKNOWN * weight[0].numel()))
    goal = target[: rows.shape[1]].index_select(1, channels)
    goal = goal.view(len(goal), node.groups, -1).transpose(0, 1).contiguous()
    has_intercept = norm is not None or f"{node.name}.bias" in weights
    columns, intercept = ridge_regression(rows, goal, filters_to_columns(node, weight), has_intercept)
    weights[f"{node.name}.weight"] = columns_to_filters(node, columns, weight.shape).numpy()
    if norm is not None:
        own_bias = weights.get(f"{node.name}.bias", np.float32(0))
        weights[f"{norm}.running_mean"] = weights[f"{norm}.running_mean"] - intercept.numpy() + own_bias
    elif has_intercept:
        weights[f"{node.name}.bias"] = intercept.numpy()


def ridge_regression(
    X: torch.Tensor, Y: torch.Tensor, start: torch.Tensor, has_intercept: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Least squares per group, shrunk towards `start`.

    Args:
        X: (groups, rows, unknowns).
        Y: (groups, rows, outputs).
        start: (groups, unknowns, outputs).

    Returns:
        The solution, like `start`, and the intercepts (groups * outputs,), zeros when there are none.
    """
    average = torch.full((len(X), 1, X.shape[1]), has_intercept / X.shape[1])
    mean_x, mean_y = average @ X, average @ Y
    X = X - mean_x
    gram, cross = (X.mT @ X).double(), (X.mT @ Y).double()
    residual = cross - gram @ start.double()
    diagonal = gram.diagonal(dim1=1, dim2=2)
    diagonal += RIDGE * diagonal.mean(dim=1, keepdim=True) + float(np.finfo(np.float32).tiny)
    solution = start + torch.cholesky_solve(residual, torch.linalg.cholesky(gram)).float()
    intercept = (mean_y - mean_x @ solution) * has_intercept
    return solution, intercept.reshape(-1)
