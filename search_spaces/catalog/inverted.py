"""Inverted residual blocks with linear bottlenecks (Sandler et al., arXiv 1801.04381): narrow, wide, narrow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from search_spaces.catalog.parts import conv_norm_act, scaled, squeeze_and_excite
from search_spaces.network import Node, Op


@dataclass(frozen=True, slots=True)
class Inverted:
    """What one block is made of.

    Attributes:
        expanded: channels inside; where the input has as many there is no 1x1 conv before the depthwise one.
        outputs: channels of the block.
        kernel, stride: of the depthwise conv.
        activation: after the expansion and after the depthwise conv, not after the projection.
        squeezed: channels inside squeeze-and-excite, which follows the depthwise conv; 0 for none.
    """

    expanded: int
    outputs: int
    kernel: int
    stride: int
    activation: Op
    squeezed: int = 0


@dataclass(frozen=True, slots=True)
class InvertedStage:
    """Blocks in a row that make maps of one shape: t, c, n, s in the paper's table 2, and the kernel."""

    expansion: int
    channels: int
    blocks: int
    stride: int
    kernel: int = 3


def inverted_stages(stages: Sequence[InvertedStage], source: str, inputs: int, width: float) -> list[Node]:
    """`block1`, `block2` ... of all stages, with ReLU6; the first block of a stage has its stride."""
    nodes: list[Node] = []
    number, tip = 0, source
    for stage in stages:
        outputs = scaled(stage.channels, width)
        for stride in (stage.stride, *[1] * (stage.blocks - 1)):
            number += 1
            plan = Inverted(stage.expansion * inputs, outputs, stage.kernel, stride, Op.RELU6)
            nodes += inverted_residual(f"block{number}", tip, inputs, plan)
            inputs, tip = outputs, nodes[-1].name
    return nodes


def inverted_residual(block: str, source: str, inputs: int, plan: Inverted) -> list[Node]:
    """`expand`, `depthwise`, `project`; the input is added where the shape stays."""
    nodes: list[Node] = []
    tip = source
    if plan.expanded != inputs:
        nodes = conv_norm_act(
            f"{block}.expand", source, plan.expanded, kernel=1, activation=plan.activation, block=block
        )
        tip = nodes[-1].name
    nodes += _depthwise(block, tip, plan)
    if plan.squeezed:
        nodes += squeeze_and_excite(block, nodes[-1].name, plan.expanded, plan.squeezed)
    nodes += conv_norm_act(f"{block}.project", nodes[-1].name, plan.outputs, kernel=1, activation=None, block=block)
    if plan.stride == 1 and inputs == plan.outputs:
        nodes.append(Node(f"{block}.add", Op.ADD, (nodes[-1].name, source), block=block))
    return nodes


def _depthwise(block: str, source: str, plan: Inverted) -> list[Node]:
    return conv_norm_act(
        f"{block}.depthwise",
        source,
        plan.expanded,
        kernel=plan.kernel,
        stride=plan.stride,
        groups=plan.expanded,
        activation=plan.activation,
        block=block,
    )
