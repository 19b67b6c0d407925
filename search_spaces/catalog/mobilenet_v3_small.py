"""MobileNet-V3-Small (Howard et al., arXiv 1905.02244, table 2): gated inverted residuals and hard swish.

Layers: `stem`, `block1.depthwise`, `block1.squeeze`, `block1.excite`, `block1.project`, `block2.expand`, ...,
`block11.project`, `head`, `hidden`, `classifier`.
"""

from __future__ import annotations

from search_spaces.catalog.inverted import Inverted, inverted_residual
from search_spaces.catalog.parts import activated, classifier, conv_norm_act, pooled_features, scaled
from search_spaces.network import Node, Op
from search_spaces.spec import NetworkSpec

STEM_CHANNELS = 16
STEM_STRIDE = 2
BLOCKS = (
    (3, 16, 16, True, Op.RELU, 2),
    (3, 72, 24, False, Op.RELU, 2),
    (3, 88, 24, False, Op.RELU, 1),
    (5, 96, 40, True, Op.HARD_SWISH, 2),
    (5, 240, 40, True, Op.HARD_SWISH, 1),
    (5, 240, 40, True, Op.HARD_SWISH, 1),
    (5, 120, 48, True, Op.HARD_SWISH, 1),
    (5, 144, 48, True, Op.HARD_SWISH, 1),
    (5, 288, 96, True, Op.HARD_SWISH, 2),
    (5, 576, 96, True, Op.HARD_SWISH, 1),
    (5, 576, 96, True, Op.HARD_SWISH, 1),
)
"""(kernel, expanded channels, output channels, squeeze-and-excite, activation, stride) of each block."""

HEAD_CHANNELS = 576
HIDDEN_FEATURES = 1024
SQUEEZE = 1 / 4
"""Channels inside squeeze-and-excite over those that it gates."""


def mobilenet_v3_small_nodes(spec: NetworkSpec, classes: int) -> list[Node]:
    """All nodes; the stem's stride is 2 unless the spec says otherwise."""
    channels, stride = scaled(STEM_CHANNELS, spec.width), spec.stem_stride or STEM_STRIDE
    nodes = [Node("input", Op.INPUT)]
    nodes += conv_norm_act("stem", "input", channels, kernel=3, stride=stride, activation=Op.HARD_SWISH, block="stem")
    for number, (kernel, inside, width, is_gated, activation, stride) in enumerate(BLOCKS, start=1):
        expanded, outputs = scaled(inside, spec.width), scaled(width, spec.width)
        squeezed = scaled(expanded, SQUEEZE) if is_gated else 0
        plan = Inverted(expanded, outputs, kernel, stride, activation, squeezed)
        nodes += inverted_residual(f"block{number}", nodes[-1].name, channels, plan)
        channels = outputs
    head = scaled(HEAD_CHANNELS, spec.width)
    nodes += conv_norm_act("head", nodes[-1].name, head, kernel=1, activation=Op.HARD_SWISH, block="head")
    return nodes + _two_linears(nodes[-1].name, scaled(HIDDEN_FEATURES, spec.width), classes)


def _two_linears(source: str, hidden: int, classes: int) -> list[Node]:
    nodes = pooled_features(source)
    nodes.append(Node("hidden", Op.LINEAR, (nodes[-1].name,), channels=hidden, bias=True, block="hidden"))
    nodes.append(activated("hidden", "hidden", Op.HARD_SWISH, "hidden"))
    return [*nodes, classifier(nodes[-1].name, classes)]
