"""Residual blocks (He et al., arXiv 1512.03385): what a few convs compute is added to their input.

The shortcut is the block's input, or a 1x1 projection conv with batch norm where the block changes the shape.
"""

from __future__ import annotations

from search_spaces.catalog.parts import activated, conv_norm_act
from search_spaces.network import Node, Op


def basic_block(block: str, source: str, channels: int, *, stride: int, projects: bool) -> list[Node]:
    """Two 3x3 convs, `conv1` and `conv2`."""
    nodes = conv_norm_act(f"{block}.conv1", source, channels, kernel=3, stride=stride, block=block)
    nodes += conv_norm_act(f"{block}.conv2", nodes[-1].name, channels, kernel=3, activation=None, block=block)
    return nodes + _joined(block, source, nodes[-1].name, channels, stride if projects else None)


def bottleneck_block(
    block: str, source: str, inner: int, outputs: int, *, stride: int, groups: int, projects: bool
) -> list[Node]:
    """1x1 to `inner` channels, 3x3 (grouped in ResNeXt), 1x1 to `outputs`: `conv1`, `conv2`, `conv3`.

    The stride is the 3x3 conv's, not the first one's as in the paper: that loses no pixels ("V1.5").
    """
    nodes = conv_norm_act(f"{block}.conv1", source, inner, kernel=1, block=block)
    nodes += conv_norm_act(f"{block}.conv2", nodes[-1].name, inner, kernel=3, stride=stride, groups=groups, block=block)
    nodes += conv_norm_act(f"{block}.conv3", nodes[-1].name, outputs, kernel=1, activation=None, block=block)
    return nodes + _joined(block, source, nodes[-1].name, outputs, stride if projects else None)


def _joined(block: str, source: str, branch: str, channels: int, projection_stride: int | None) -> list[Node]:
    """The sum of branch and shortcut, and its ReLU; without a stride there is no projection."""
    shortcut, nodes = source, []
    if projection_stride is not None:
        name = f"{block}.shortcut"
        nodes = conv_norm_act(name, source, channels, kernel=1, stride=projection_stride, activation=None, block=block)
        shortcut = nodes[-1].name
    total = Node(f"{block}.add", Op.ADD, (branch, shortcut), block=block)
    return [*nodes, total, activated(total.name, block, Op.RELU, block)]
