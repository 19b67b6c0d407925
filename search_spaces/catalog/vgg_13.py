"""VGG-13 (configuration B of Simonyan and Zisserman, arXiv 1409.1556) as conv, batch norm, ReLU.

Ten 3x3 convs in five stages, 2,944 filters at width 1. The head is global average pooling and one
linear layer, as is usual on CIFAR, at every input size, instead of the paper's three linear layers.
Layers: `stage1.conv1`, `stage1.conv2`, ..., `stage5.conv2`, `classifier`.
"""

from __future__ import annotations

from search_spaces.catalog.parts import classifier_head, conv_norm_act, scaled
from search_spaces.network import Node, Op
from search_spaces.spec import NetworkSpec

STAGE_CHANNELS = (64, 128, 256, 512, 512)
CONVS_PER_STAGE = 2


def vgg_13_nodes(spec: NetworkSpec, classes: int) -> list[Node]:
    """All nodes. A stage's pool is left out where the map is too small to be halved."""
    nodes = [Node("input", Op.INPUT)]
    stride = spec.stem_stride or 1
    side = (min(spec.input[1:]) - 1) // stride + 1
    for stage, width in enumerate(STAGE_CHANNELS, start=1):
        for conv in range(1, CONVS_PER_STAGE + 1):
            name, block = f"stage{stage}.conv{conv}", f"stage{stage}"
            first = stage == conv == 1
            nodes += conv_norm_act(
                name, nodes[-1].name, scaled(width, spec.width), kernel=3, stride=stride if first else 1, block=block
            )
        if side >= 2:
            nodes.append(Node(f"stage{stage}.pool", Op.MAX_POOL, (nodes[-1].name,), kernel=(2, 2), stride=(2, 2)))
            side //= 2
    return nodes + classifier_head(nodes[-1].name, classes)
