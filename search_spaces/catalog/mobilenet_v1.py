"""MobileNet-V1 (Howard et al., arXiv 1704.04861): a stem and 13 depthwise-separable blocks.

Layers: `stem`, `block1.depthwise`, `block1.pointwise`, ..., `block13.pointwise`, `classifier`.
"""

from __future__ import annotations

from search_spaces.catalog.parts import classifier_head, conv_norm_act, scaled
from search_spaces.network import Node, Op
from search_spaces.spec import NetworkSpec

STEM_CHANNELS = 32
STEM_STRIDE = 2
BLOCKS = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1)),
)
"""(pointwise output channels, depthwise stride) of each block; small inputs keep this plan."""


def mobilenet_v1_nodes(spec: NetworkSpec, classes: int) -> list[Node]:
    """All nodes; the stem's stride is 2 unless the spec says otherwise."""
    stem = scaled(STEM_CHANNELS, spec.width)
    nodes = [Node("input", Op.INPUT)]
    nodes += conv_norm_act("stem", "input", stem, kernel=3, stride=spec.stem_stride or STEM_STRIDE, block="stem")
    channels = stem
    for number, (width, stride) in enumerate(BLOCKS, start=1):
        outputs = scaled(width, spec.width)
        nodes += _separable_block(f"block{number}", nodes[-1].name, channels, outputs, stride)
        channels = outputs
    return nodes + classifier_head(nodes[-1].name, classes)


def _separable_block(block: str, source: str, inputs: int, outputs: int, stride: int) -> list[Node]:
    depthwise = conv_norm_act(f"{block}.depthwise", source, inputs, kernel=3, stride=stride, groups=inputs, block=block)
    return depthwise + conv_norm_act(f"{block}.pointwise", depthwise[-1].name, outputs, kernel=1, block=block)
