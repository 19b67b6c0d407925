"""The few pieces that catalog networks are made of. Each returns its nodes; the last one's name is the output."""

from __future__ import annotations

from search_spaces.network import Node, Op

CHANNEL_MULTIPLE = 8
"""Scaled widths are rounded to this, so that no width makes counts that every device dislikes."""


def scaled(channels: int, width: float) -> int:
    """`channels` times the width multiplier, to the nearest multiple of 8, at least 8."""
    return max(CHANNEL_MULTIPLE, round(channels * width / CHANNEL_MULTIPLE) * CHANNEL_MULTIPLE)


def conv_norm(
    name: str, source: str, channels: int, *, kernel: int, stride: int = 1, groups: int = 1, block: str
) -> list[Node]:
    """A square conv without bias, zero-padded to keep the map's size at stride 1, then `<name>.norm`."""
    conv = Node(
        name,
        Op.CONV,
        (source,),
        channels=channels,
        kernel=(kernel, kernel),
        stride=(stride, stride),
        padding=(kernel // 2,) * 4,
        groups=groups,
        block=block,
    )
    return [conv, Node(f"{name}.norm", Op.BATCH_NORM, (name,), block=block)]


def conv_norm_relu(
    name: str, source: str, channels: int, *, kernel: int, stride: int = 1, groups: int = 1, block: str
) -> list[Node]:
    """`conv_norm`, then `<name>.relu`."""
    nodes = conv_norm(name, source, channels, kernel=kernel, stride=stride, groups=groups, block=block)
    return [*nodes, Node(f"{name}.relu", Op.RELU, (nodes[-1].name,), block=block)]


def classifier_head(source: str, classes: int) -> list[Node]:
    """Global average pooling and one linear layer, `classifier`, whose output are the logits."""
    return [
        Node("pool", Op.GLOBAL_AVERAGE_POOL, (source,)),
        Node("flatten", Op.FLATTEN, ("pool",)),
        Node("classifier", Op.LINEAR, ("flatten",), channels=classes, bias=True, block="classifier"),
    ]
