"""EfficientNet-Lite0: EfficientNet-B0 (Tan and Le, arXiv 1905.11946, table 1) made for integer hardware.

As in the TPU team's repository (`tensorflow/tpu`, `models/official/efficientnet/lite`): no squeeze-and-excite,
ReLU6 for swish, and a stem and a head that no width changes. Strided convs are padded on both sides, as
everywhere in the catalog; TensorFlow pads on one.
Layers: `stem`, `block1.depthwise`, `block1.project`, `block2.expand`, ..., `block16.project`, `head`, `classifier`.
"""

from __future__ import annotations

from search_spaces.catalog.inverted import InvertedStage, inverted_stages
from search_spaces.catalog.parts import classifier_head, conv_norm_act
from search_spaces.network import Node, Op
from search_spaces.spec import NetworkSpec

STEM_CHANNELS = 32
STEM_STRIDE = 2
STAGES = (
    InvertedStage(expansion=1, channels=16, blocks=1, stride=1),
    InvertedStage(expansion=6, channels=24, blocks=2, stride=2),
    InvertedStage(expansion=6, channels=40, blocks=2, stride=2, kernel=5),
    InvertedStage(expansion=6, channels=80, blocks=3, stride=2),
    InvertedStage(expansion=6, channels=112, blocks=3, stride=1, kernel=5),
    InvertedStage(expansion=6, channels=192, blocks=4, stride=2, kernel=5),
    InvertedStage(expansion=6, channels=320, blocks=1, stride=1),
)
HEAD_CHANNELS = 1280


def efficientnet_lite0_nodes(spec: NetworkSpec, classes: int) -> list[Node]:
    """All nodes; the stem's stride is 2 unless the spec says otherwise."""
    nodes = [Node("input", Op.INPUT)]
    nodes += conv_norm_act(
        "stem",
        "input",
        STEM_CHANNELS,
        kernel=3,
        stride=spec.stem_stride or STEM_STRIDE,
        activation=Op.RELU6,
        block="stem",
    )
    nodes += inverted_stages(STAGES, nodes[-1].name, STEM_CHANNELS, spec.width)
    nodes += conv_norm_act("head", nodes[-1].name, HEAD_CHANNELS, kernel=1, activation=Op.RELU6, block="head")
    return nodes + classifier_head(nodes[-1].name, classes)
