"""The few pieces that catalog networks are made of. Each returns its nodes; the last one's name is the output."""

from __future__ import annotations

import math

from search_spaces.network import Node, Op
from search_spaces.spec import NetworkSpec

CHANNEL_MULTIPLE = 8
"""Scaled widths are rounded to this, so that no width makes counts that every device dislikes."""


def scaled(channels: int, width: float, multiple: int = CHANNEL_MULTIPLE) -> int:
    """`channels` times the width multiplier, to the nearest positive multiple; ties go up, as in the MobileNets."""
    return max(math.floor(channels * width / multiple + 0.5), 1) * multiple


def conv_norm_act(
    name: str,
    source: str,
    channels: int,
    *,
    kernel: int | tuple[int, int],
    stride: int = 1,
    groups: int = 1,
    padded: bool = True,
    activation: Op | None = Op.RELU,
    block: str,
) -> list[Node]:
    """A conv without bias, `<name>.norm` and `<name>.<activation>`.

    Args:
        name: of the conv.
        source: tensor that it reads.
        channels: that it makes.
        kernel: side of a square one, or (vertical, horizontal).
        stride: both ways.
        groups: of the conv.
        padded: whether zeros around the input keep the map's size at stride 1.
        activation: None leaves the norm's output as it is.
        block: of all three.
    """
    vertical, horizontal = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    conv = Node(
        name,
        Op.CONV,
        (source,),
        channels=channels,
        kernel=(vertical, horizontal),
        stride=(stride, stride),
        padding=(vertical // 2, horizontal // 2) * 2 if padded else (0,) * 4,
        groups=groups,
        block=block,
    )
    norm = Node(f"{name}.norm", Op.BATCH_NORM, (name,), block=block)
    return [conv, norm] if activation is None else [conv, norm, activated(norm.name, name, activation, block)]


def activated(source: str, name: str, activation: Op, block: str) -> Node:
    """`<name>.<activation>`, which reads `source`."""
    return Node(f"{name}.{activation}", activation, (source,), block=block)


def squeeze_and_excite(block: str, source: str, channels: int, squeezed: int) -> list[Node]:
    """Multiplies each channel of `source` by a gate in [0, 1] that is told from all channels' means.

    As MobileNet-V3 has it (Howard et al., arXiv 1905.02244, section 5.3; Hu et al., arXiv 1709.01507): ReLU and a
    hard sigmoid, and biases, since there are no norms. Layers: `<block>.squeeze`, `<block>.excite`.
    """
    squeeze, excite = f"{block}.squeeze", f"{block}.excite"
    return [
        Node(f"{squeeze}.pool", Op.GLOBAL_AVERAGE_POOL, (source,), block=block),
        Node(squeeze, Op.CONV, (f"{squeeze}.pool",), channels=squeezed, bias=True, block=block),
        activated(squeeze, squeeze, Op.RELU, block),
        Node(excite, Op.CONV, (f"{squeeze}.relu",), channels=channels, bias=True, block=block),
        activated(excite, excite, Op.HARD_SIGMOID, block),
        Node(f"{block}.gated", Op.MULTIPLY, (source, f"{excite}.hard_sigmoid"), block=block),
    ]


def image_stem(spec: NetworkSpec, channels: int, kernel: int) -> list[Node]:
    """A conv of stride 2, `stem`, and a 3x3 max pool that halves the map again.

    At a stem stride of 1 both halvings are left out, and so is what a large kernel is for: a 3x3 conv alone, as is
    usual for small images.
    """
    if spec.stem_stride == 1:
        return conv_norm_act("stem", "input", channels, kernel=3, block="stem")
    nodes = conv_norm_act("stem", "input", channels, kernel=kernel, stride=2, block="stem")
    return [*nodes, max_pool("stem.pool", nodes[-1].name, padded=True, block="stem")]


def max_pool(name: str, source: str, *, padded: bool, block: str) -> Node:
    """3x3 with stride 2; padded, it halves a map of any size, to one cell at least."""
    padding = (int(padded),) * 4
    return Node(name, Op.MAX_POOL, (source,), kernel=(3, 3), stride=(2, 2), padding=padding, block=block)


def pooled_features(source: str) -> list[Node]:
    """The mean of each channel, as a flat tensor."""
    return [Node("pool", Op.GLOBAL_AVERAGE_POOL, (source,)), Node("flatten", Op.FLATTEN, ("pool",))]


def classifier_head(source: str, classes: int) -> list[Node]:
    """Global average pooling and one linear layer, `classifier`, whose output are the logits."""
    return [*pooled_features(source), classifier("flatten", classes)]


def classifier(source: str, classes: int) -> Node:
    """The linear layer that makes the logits."""
    return Node("classifier", Op.LINEAR, (source,), channels=classes, bias=True, block="classifier")
