"""ResNet-56 for small images (He et al., arXiv 1512.03385, section 4.2): 3 stages of 9 basic blocks.

Where a block changes the shape, the shortcut is a 1x1 projection conv with batch norm. The paper's
CIFAR networks pad with zero channels there (option A), which would tie channel counts of neighbouring
stages together and cannot be pruned.
Layers: `stem`, `stage1.block1.conv1`, `stage1.block1.conv2`, `stage2.block1.shortcut`, ..., `classifier`.
"""

from __future__ import annotations

from search_spaces.catalog.parts import classifier_head, conv_norm_act, scaled
from search_spaces.catalog.residual import basic_block
from search_spaces.network import Node, Op
from search_spaces.spec import NetworkSpec

STAGE_CHANNELS = (16, 32, 64)
BLOCKS_PER_STAGE = 9


def resnet_56_nodes(spec: NetworkSpec, classes: int) -> list[Node]:
    """All nodes; the stem's stride is 1 unless the spec says otherwise."""
    nodes = [Node("input", Op.INPUT)]
    stem = scaled(STAGE_CHANNELS[0], spec.width)
    nodes += conv_norm_act("stem", "input", stem, kernel=3, stride=spec.stem_stride or 1, block="stem")
    for stage, width in enumerate(STAGE_CHANNELS, start=1):
        for number in range(1, BLOCKS_PER_STAGE + 1):
            halves = number == 1 and stage > 1
            block, channels = f"stage{stage}.block{number}", scaled(width, spec.width)
            nodes += basic_block(block, nodes[-1].name, channels, stride=1 + halves, projects=halves)
    return nodes + classifier_head(nodes[-1].name, classes)
