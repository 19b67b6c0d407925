"""MobileNet-V2 (Sandler et al., arXiv 1801.04381, table 2): a stem, 17 inverted residual blocks, a 1x1 head.

Layers: `stem`, `block1.depthwise`, `block1.project`, `block2.expand`, ..., `block17.project`, `head`, `classifier`.
"""

from __future__ import annotations

from search_spaces.catalog.inverted import InvertedStage, inverted_stages
from search_spaces.catalog.parts import classifier_head, conv_norm_act, scaled
from search_spaces.network import Node, Op
from search_spaces.spec import NetworkSpec

STEM_CHANNELS = 32
STEM_STRIDE = 2
STAGES = (
    InvertedStage(expansion=1, channels=16, blocks=1, stride=1),
    InvertedStage(expansion=6, channels=24, blocks=2, stride=2),
    InvertedStage(expansion=6, channels=32, blocks=3, stride=2),
    InvertedStage(expansion=6, channels=64, blocks=4, stride=2),
    InvertedStage(expansion=6, channels=96, blocks=3, stride=1),
    InvertedStage(expansion=6, channels=160, blocks=3, stride=2),
    InvertedStage(expansion=6, channels=320, blocks=1, stride=1),
)
HEAD_CHANNELS = 1280


def mobilenet_v2_nodes(spec: NetworkSpec, classes: int) -> list[Node]:
    """All nodes. As in the paper, section 4, a width below 1 leaves the head as wide as it is."""
    stem, stride = scaled(STEM_CHANNELS, spec.width), spec.stem_stride or STEM_STRIDE
    nodes = [Node("input", Op.INPUT)]
    nodes += conv_norm_act("stem", "input", stem, kernel=3, stride=stride, activation=Op.RELU6, block="stem")
    nodes += inverted_stages(STAGES, nodes[-1].name, stem, spec.width)
    head = scaled(HEAD_CHANNELS, max(spec.width, 1.0))
    nodes += conv_norm_act("head", nodes[-1].name, head, kernel=1, activation=Op.RELU6, block="head")
    return nodes + classifier_head(nodes[-1].name, classes)
