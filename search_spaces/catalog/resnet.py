"""ResNet-18 and ResNet-50 (He et al., arXiv 1512.03385) and ResNeXt-50 32x4d (Xie et al., arXiv 1611.05431).

At a stem stride of 1 the stem is a single 3x3 conv without a max pool, for small images.
Layers: `stem`, `stage1.block1.conv1`, ..., `stage1.block1.shortcut`, ..., `stage4.block3.conv3`, `classifier`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from search_spaces.catalog.parts import classifier_head, image_stem, scaled
from search_spaces.catalog.residual import basic_block, bottleneck_block
from search_spaces.network import Node, Op
from search_spaces.spec import NetworkSpec

STAGE_CHANNELS = (64, 128, 256, 512)
BLOCKS_18 = (2, 2, 2, 2)
BLOCKS_50 = (3, 4, 6, 3)
EXPANSION = 4
"""Output channels of a bottleneck block over its stage's."""

CARDINALITY = 32
"""Groups of each of ResNeXt-50's 3x3 convs, at every width."""


def resnet_18_nodes(spec: NetworkSpec, classes: int) -> list[Node]:
    """All nodes, of basic blocks."""
    channels = scaled(STAGE_CHANNELS[0], spec.width)
    nodes = [Node("input", Op.INPUT), *image_stem(spec, channels, kernel=7)]
    for block, width, stride in _blocks(BLOCKS_18):
        outputs = scaled(width, spec.width)
        projects = stride > 1 or channels != outputs
        nodes += basic_block(block, nodes[-1].name, outputs, stride=stride, projects=projects)
        channels = outputs
    return nodes + classifier_head(nodes[-1].name, classes)


def resnet_50_nodes(spec: NetworkSpec, classes: int) -> list[Node]:
    """All nodes, of bottleneck blocks."""
    inner = {width: scaled(width, spec.width) for width in STAGE_CHANNELS}
    return _bottlenecks(spec, classes, inner, groups=1)


def resnext_50_nodes(spec: NetworkSpec, classes: int) -> list[Node]:
    """All nodes, of bottleneck blocks twice as wide inside, whose 3x3 convs have 32 groups.

    At least two channels stay in a group, however small the width: with one the conv would be depthwise, and
    that is another architecture.
    """
    inner = {width: scaled(2 * width, spec.width, multiple=2 * CARDINALITY) for width in STAGE_CHANNELS}
    return _bottlenecks(spec, classes, inner, groups=CARDINALITY)


def _bottlenecks(spec: NetworkSpec, classes: int, inner: Mapping[int, int], groups: int) -> list[Node]:
    """All nodes; `inner` has the channels inside of a block by its stage's."""
    channels = scaled(STAGE_CHANNELS[0], spec.width)
    nodes = [Node("input", Op.INPUT), *image_stem(spec, channels, kernel=7)]
    for block, width, stride in _blocks(BLOCKS_50):
        outputs = scaled(EXPANSION * width, spec.width)
        projects = stride > 1 or channels != outputs
        nodes += bottleneck_block(
            block, nodes[-1].name, inner[width], outputs, stride=stride, groups=groups, projects=projects
        )
        channels = outputs
    return nodes + classifier_head(nodes[-1].name, classes)


def _blocks(depths: Sequence[int]) -> Iterator[tuple[str, int, int]]:
    """Name, stage's channels and stride of each block: all stages but the first begin by halving the map."""
    for stage, (width, depth) in enumerate(zip(STAGE_CHANNELS, depths, strict=True), start=1):
        for number in range(1, depth + 1):
            yield f"stage{stage}.block{number}", width, 2 if number == 1 and stage > 1 else 1
