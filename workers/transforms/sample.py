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
    y = rows[:, None] * node.stride[0] - node.padding[0] + tap_rows * node.dilation[0]
    x = columns[:, None] * node.stride[1] - node.padding[1] + tap_columns * node.dilation[1]
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
        (groups, rows, unknowns), the unknowns in the order of `filters_to_columns`.
    """
    if window is None:
        return tensor[None, :rows]
    index = window.index[:rows] if node.groups == 1 else window.index[:rows].T
    cells = tensor.permute(0, 2, 3, 1).reshape(-1, tensor.shape[1])
    taps = cells.index_select(0, index.reshape(-1))
    if window.inside is not None:
        inside = window.inside[:rows] if node.groups == 1 else window.inside[:rows].transpose(0, 1)
        taps *= inside.reshape(-1, 1)
    if node.groups == 1:
        return taps.view(1, len(index), -1)
    # Transposed as one matrix: torch copies that several times faster than a permutation of three axes.
    return taps.T.contiguous().view(node.groups, -1, index.shape[1]).mT


def filters_to_columns(node: Node, weight: torch.Tensor) -> torch.Tensor:
    """(outputs, G, height, width) or (outputs, inputs) -> (groups, unknowns, outputs per group).

    Unknowns are channel by channel, and tap by tap where there is one group only.
    """
    if weight.dim() == 4 and node.groups == 1:
        weight = weight.permute(0, 2, 3, 1)
    return weight.reshape(node.groups, len(weight) // node.groups, -1).mT


def columns_to_filters(node: Node, columns: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Inverse of `filters_to_columns`, to the filters' own shape."""
    flat = columns.mT.reshape(shape[0], -1)
    if len(shape) == 2 or node.groups > 1:
        return flat.reshape(shape).contiguous()
    return flat.view(shape[0], shape[2], shape[3], shape[1]).permute(0, 3, 1, 2).contiguous()
