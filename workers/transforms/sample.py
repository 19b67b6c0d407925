"""Samples of what each layer reads, at a few output positions: im2col without the full matrix.

Positions are drawn once per base. A candidate's maps are as high and wide as the base's, so both are
sampled at the same places, and the base's outputs there can be kept as targets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from search_spaces.network import Network, Node, Op, Shape, infer_shapes

POSITIONS_PER_IMAGE = 16
MAX_ROWS = 16_384
"""Of all images together; bounds memory when there are thousands of calibration images."""

_SEED = 20_181


@dataclass(frozen=True, slots=True)
class Window:
    """Where a layer's sampled rows come from in its input map.

    Rows are ordered position by position, all images at the first, then all at the second, so that any
    first rows are spread over all images.

    Attributes:
        index: (rows, taps), places in the input flattened to (images * height * width).
        inside: (rows, taps, 1), 0 where the tap falls into the padding; None when none does.
    """

    index: torch.Tensor
    inside: torch.Tensor | None


def draw_windows(network: Network, images: int) -> dict[str, Window]:
    """The sampled windows of every conv of a network, for a batch of that many images."""
    shapes = infer_shapes(network)
    generator = np.random.default_rng(_SEED)
    return {
        node.name: _draw_window(node, shapes[node.inputs[0]], shapes[node.name], images, generator)
        for node in network.nodes
        if node.op is Op.CONV
    }


def _draw_window(node: Node, source: Shape, target: Shape, images: int, generator: np.random.Generator) -> Window:
    cells = target[1] * target[2]
    count = min(cells, POSITIONS_PER_IMAGE, max(1, MAX_ROWS // images))
    order = generator.random((images, cells)).argsort(axis=1)[:, :count].T  # (count, images)
    rows, columns = np.divmod(order.reshape(-1), target[2])
    tap_rows, tap_columns = np.divmod(np.arange(node.kernel[0] * node.kernel[1]), node.kernel[1])
    y = rows[:, None] * node.stride[0] - node.padding[0] + tap_rows
    x = columns[:, None] * node.stride[1] - node.padding[1] + tap_columns
    inside = (y >= 0) & (y < source[1]) & (x >= 0) & (x < source[2])
    image = np.tile(np.arange(images), count)[:, None]
    index = (image * source[1] + y) * source[2] + x
    mask = None if inside.all() else torch.from_numpy(inside[..., None].astype(np.float32))
    return Window(torch.from_numpy(np.where(inside, index, 0)), mask)


def sample_inputs(node: Node, tensor: torch.Tensor, window: Window | None, rows: int) -> torch.Tensor:
    """What a layer reads at its first sampled rows.

    Args:
        tensor: its input, (images, channels, height, width) in channels_last, or (images, features).
        window: None for a linear layer, which is sampled whole.

    Returns:
        (groups, rows, taps * channels per group), taps before channels.
    """
    if window is None:
        return tensor[None, :rows]
    channels = tensor.shape[1]
    cells = tensor.permute(0, 2, 3, 1).reshape(-1, channels)
    index = window.index[:rows]
    taps = cells.index_select(0, index.reshape(-1)).view(*index.shape, channels)
    if window.inside is not None:
        taps *= window.inside[:rows]
    if node.groups == 1:
        return taps.view(1, len(index), -1)
    grouped = taps.view(*index.shape, node.groups, channels // node.groups)
    return grouped.permute(2, 0, 1, 3).contiguous().view(node.groups, len(index), -1)


def filters_to_columns(node: Node, weight: torch.Tensor) -> torch.Tensor:
    """(outputs, G, height, width) or (outputs, inputs) -> (groups, taps * G, outputs per group)."""
    if weight.dim() == 4:
        weight = weight.permute(0, 2, 3, 1)
    return weight.reshape(node.groups, len(weight) // node.groups, -1).transpose(1, 2)


def columns_to_filters(columns: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Inverse of `filters_to_columns`, to the filters' own shape."""
    flat = columns.transpose(1, 2).reshape(shape[0], -1)
    if len(shape) == 2:
        return flat.contiguous()
    return flat.view(shape[0], shape[2], shape[3], shape[1]).permute(0, 3, 1, 2).contiguous()
