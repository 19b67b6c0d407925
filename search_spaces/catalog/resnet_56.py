"""ResNet-56 for small images (He et al., arXiv 1512.03385, section 4.2): 3 stages of 9 basic blocks.

Where a block changes the shape, the shortcut is a 1x1 projection conv with batch norm. The paper's
CIFAR networks pad with zero channels there (option A), which would tie channel counts of neighbouring
stages together and cannot be pruned.
Layers: `stem`, `stage1.block1.conv1`, `stage1.block1.conv2`, `stage2.block1.shortcut`, ..., `classifier`.
"""

from __future__ import annotations

from search_spaces.catalog.parts import classifier_head, conv_norm, conv_norm_relu, scaled
from search_spaces.network import Node, Op
from search_spaces.spec import NetworkSpec

STAGE_CHANNELS = (16, 32, 64)
BLOCKS_PER_STAGE = 9


def resnet_56_nodes(spec: NetworkSpec, classes: int) -> list[Node]:
    """All nodes; the stem's stride is 1 unless the spec says otherwise."""
    nodes = [Node("input", Op.INPUT)]
    stem = scaled(STAGE_CHANNELS[0], spec.width)
    nodes += conv_norm_relu("stem", "input", stem, kernel=3, stride=spec.stem_stride or 1, block="stem")
    for stage, width in enumerate(STAGE_CHANNELS, start=1):
        for number in range(1, BLOCKS_PER_STAGE + 1):
            changes_shape = number == 1 and stage > 1
            block = f"stage{stage}.block{number}"
            nodes += _basic_block(block, nodes[-1].name, scaled(width, spec.width), changes_shape)
    return nodes + classifier_head(nodes[-1].name, classes)


def _basic_block(block: str, source: str, channels: int, changes_shape: bool) -> list[Node]:
    stride, shortcut = (2, f"{block}.shortcut.norm") if changes_shape else (1, source)
    nodes = conv_norm_relu(f"{block}.conv1", source, channels, kernel=3, stride=stride, block=block)
    nodes += conv_norm(f"{block}.conv2", nodes[-1].name, channels, kernel=3, block=block)
    branch = nodes[-1].name
    if changes_shape:
        nodes += conv_norm(f"{block}.shortcut", source, channels, kernel=1, stride=stride, block=block)
    nodes.append(Node(f"{block}.add", Op.ADD, (branch, shortcut), block=block))
    nodes.append(Node(f"{block}.relu", Op.RELU, (f"{block}.add",), block=block))
    return nodes
