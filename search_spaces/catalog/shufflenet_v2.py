"""ShuffleNet-V2 x1.0 (Ma et al., arXiv 1807.11164, section 4, figure 3): half of the channels pass a block unchanged.

A block of stride 1 splits its input in two, works on the second half and joins them; one of stride 2 makes both
halves from all of it. Both end in a shuffle that mixes the halves.
At a stem stride of 1 the stem is a 3x3 conv without a max pool, for small images.
Layers: `stem`, `stage1.block1.left.depthwise`, `stage1.block1.left.pointwise`, `stage1.block1.conv1`,
`stage1.block1.depthwise`, `stage1.block1.conv2`, ..., `stage3.block4.conv2`, `head`, `classifier`.
"""

from __future__ import annotations

from search_spaces.catalog.parts import classifier_head, conv_norm_act, image_stem, scaled
from search_spaces.network import Node, Op
from search_spaces.spec import NetworkSpec

STEM_CHANNELS = 24
STAGES = ((58, 4), (116, 8), (232, 4))
"""(channels of each half, blocks) of each stage."""

HEAD_CHANNELS = 1024


def shufflenet_v2_nodes(spec: NetworkSpec, classes: int) -> list[Node]:
    """All nodes. The halves are scaled to even counts only: 58 at width 1 is no multiple of 8."""
    channels = scaled(STEM_CHANNELS, spec.width)
    nodes = [Node("input", Op.INPUT), *image_stem(spec, channels, kernel=3)]
    for stage, (width, blocks) in enumerate(STAGES, start=1):
        half = scaled(width, spec.width, multiple=2)
        nodes += _halving_block(f"stage{stage}.block1", nodes[-1].name, channels, half)
        for number in range(2, blocks + 1):
            nodes += _splitting_block(f"stage{stage}.block{number}", nodes[-1].name, half)
        channels = 2 * half
    nodes += conv_norm_act("head", nodes[-1].name, scaled(HEAD_CHANNELS, spec.width), kernel=1, block="head")
    return nodes + classifier_head(nodes[-1].name, classes)


def _halving_block(block: str, source: str, inputs: int, half: int) -> list[Node]:
    """Stride 2: both halves of the output are made from the whole input."""
    left = _depthwise(f"{block}.left.depthwise", source, inputs, stride=2, block=block)
    left += conv_norm_act(f"{block}.left.pointwise", left[-1].name, half, kernel=1, block=block)
    right = _branch(block, source, half, stride=2)
    return [*left, *right, *_joined(block, left[-1].name, right[-1].name)]


def _splitting_block(block: str, source: str, half: int) -> list[Node]:
    """Stride 1: the first half of the input is the first half of the output."""
    left = Node(f"{block}.left", Op.SLICE, (source,), channels=half, block=block)
    right = Node(f"{block}.right", Op.SLICE, (source,), channels=half, start=half, block=block)
    branch = _branch(block, right.name, half, stride=1)
    return [left, right, *branch, *_joined(block, left.name, branch[-1].name)]


def _branch(block: str, source: str, half: int, stride: int) -> list[Node]:
    nodes = conv_norm_act(f"{block}.conv1", source, half, kernel=1, block=block)
    nodes += _depthwise(f"{block}.depthwise", nodes[-1].name, half, stride, block)
    return nodes + conv_norm_act(f"{block}.conv2", nodes[-1].name, half, kernel=1, block=block)


def _depthwise(name: str, source: str, channels: int, stride: int, block: str) -> list[Node]:
    return conv_norm_act(name, source, channels, kernel=3, stride=stride, groups=channels, activation=None, block=block)


def _joined(block: str, left: str, right: str) -> list[Node]:
    both = Node(f"{block}.concat", Op.CONCAT, (left, right), block=block)
    return [both, Node(f"{block}.shuffle", Op.SHUFFLE, (both.name,), groups=2, block=block)]
