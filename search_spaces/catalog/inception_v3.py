"""Inception-V3 (Szegedy et al., arXiv 1512.00567, table 1), without the auxiliary classifier that helps training.

Three stages of blocks; a block is a few branches beside each other, and its output their concatenation. Stages 2
and 3 begin with a block that halves the map. Made for 299 pixels; the same network fits from 75 on. For
smaller inputs, and at a stem stride of 1, it has the form for small images: every window is padded, and the
stem's two pools are left out.
Average pools inside blocks count the zeros around the map, as in torchvision.
Layers: `stem.conv1`, ..., `stage1.block1.branch1.conv1`, `stage1.block1.branch2.conv1`, ..., `classifier`.
"""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces.catalog.parts import classifier_head, conv_norm_act, max_pool, scaled
from search_spaces.network import Node, Op
from search_spaces.spec import NetworkSpec

SMALLEST_UNPADDED = 75
"""Pixels of the shorter side that leave at least one cell behind all windows that the paper does not pad."""

STEM_STRIDE = 2

Conv = tuple[int, int | tuple[int, int]]
"""Output channels and kernel."""


@dataclass(frozen=True, slots=True)
class Branch:
    """Convs in a row.

    Attributes:
        convs: in order.
        forks: convs that all read the last one and are all joined, instead of it.
        is_pooled: whether a 3x3 average pool comes first.
    """

    convs: tuple[Conv, ...]
    forks: tuple[Conv, ...] = ()
    is_pooled: bool = False


def _pooled(channels: int) -> Branch:
    return Branch(((channels, 1),), is_pooled=True)


def _square(pooled: int) -> tuple[Branch, ...]:
    """Figure 5, but for one 5x5 that its reference implementations keep beside the two 3x3."""
    return Branch(((64, 1),)), Branch(((48, 1), (64, 5))), Branch(((64, 1), (96, 3), (96, 3))), _pooled(pooled)


def _factored(inner: int) -> tuple[Branch, ...]:
    """Figure 6: 7x7 as 1x7 and 7x1."""
    once = ((inner, 1), (inner, (1, 7)), (192, (7, 1)))
    twice = ((inner, 1), (inner, (7, 1)), (inner, (1, 7)), (inner, (7, 1)), (192, (1, 7)))
    return Branch(((192, 1),)), Branch(once), Branch(twice), _pooled(192)


_FORKED = (
    Branch(((320, 1),)),
    Branch(((384, 1),), forks=((384, (1, 3)), (384, (3, 1)))),
    Branch(((448, 1), (384, 3)), forks=((384, (1, 3)), (384, (3, 1)))),
    _pooled(192),
)
"""Figure 7: wide, for the smallest maps."""

_HALVING_TO_STAGE_2 = Branch(((384, 3),)), Branch(((64, 1), (96, 3), (96, 3)))
_HALVING_TO_STAGE_3 = Branch(((192, 1), (320, 3))), Branch(((192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3)))
"""Figure 10: the last conv of each branch has stride 2, and a max pool is one more branch."""

STAGES = (
    (_square(32), _square(64), _square(64)),
    (_HALVING_TO_STAGE_2, _factored(128), _factored(160), _factored(160), _factored(192)),
    (_HALVING_TO_STAGE_3, _FORKED, _FORKED),
)


@dataclass(frozen=True, slots=True)
class _Form:
    """What shapes every conv: the width multiplier, and whether all windows are padded, for small images."""

    width: float
    is_small: bool


def inception_v3_nodes(spec: NetworkSpec, classes: int) -> list[Node]:
    """All nodes; the stem's stride is 2 unless the spec says otherwise."""
    form = _Form(spec.width, spec.stem_stride == 1 or min(spec.input[1:]) < SMALLEST_UNPADDED)
    nodes = [Node("input", Op.INPUT), *_stem(form, spec.stem_stride or STEM_STRIDE)]
    for stage, blocks in enumerate(STAGES, start=1):
        for number, branches in enumerate(blocks, start=1):
            halves = stage > 1 and number == 1
            nodes += _block(form, f"stage{stage}.block{number}", nodes[-1].name, branches, halves)
    return nodes + classifier_head(nodes[-1].name, classes)


def _stem(form: _Form, stride: int) -> list[Node]:
    nodes = _conv(form, "stem.conv1", "input", (32, 3), "stem", stride=stride, padded=False)
    nodes += _conv(form, "stem.conv2", nodes[-1].name, (32, 3), "stem", padded=False)
    nodes += _conv(form, "stem.conv3", nodes[-1].name, (64, 3), "stem")
    nodes += _stem_pool(form, "stem.pool1", nodes[-1].name)
    nodes += _conv(form, "stem.conv4", nodes[-1].name, (80, 1), "stem")
    nodes += _conv(form, "stem.conv5", nodes[-1].name, (192, 3), "stem", padded=False)
    return nodes + _stem_pool(form, "stem.pool2", nodes[-1].name)


def _stem_pool(form: _Form, name: str, source: str) -> list[Node]:
    return [] if form.is_small else [max_pool(name, source, padded=False, block="stem")]


def _conv(
    form: _Form, name: str, source: str, conv: Conv, block: str, *, stride: int = 1, padded: bool = True
) -> list[Node]:
    channels, kernel = scaled(conv[0], form.width), conv[1]
    padded = padded or form.is_small
    return conv_norm_act(name, source, channels, kernel=kernel, stride=stride, padded=padded, block=block)


def _block(form: _Form, block: str, source: str, branches: tuple[Branch, ...], halves: bool) -> list[Node]:
    nodes: list[Node] = []
    ends: list[str] = []
    for number, branch in enumerate(branches, start=1):
        name = f"{block}.branch{number}"
        row = _row(form, name, source, branch, block, halves)
        forks = [_conv(form, f"{name}.fork{n}", row[-1].name, fork, block) for n, fork in enumerate(branch.forks, 1)]
        nodes += [*row, *(node for fork in forks for node in fork)]
        ends += [part[-1].name for part in forks or [row]]
    if halves:
        nodes.append(max_pool(f"{block}.pool", source, padded=form.is_small, block=block))
        ends.append(nodes[-1].name)
    return [*nodes, Node(f"{block}.concat", Op.CONCAT, tuple(ends), block=block)]


def _row(form: _Form, name: str, source: str, branch: Branch, block: str, halves: bool) -> list[Node]:
    """A branch's convs in a row, behind its average pool if it has one."""
    nodes = _average_pool(name, source, block) if branch.is_pooled else []
    for number, conv in enumerate(branch.convs, start=1):
        source = nodes[-1].name if nodes else source
        is_halving = halves and number == len(branch.convs)
        stride = 2 if is_halving else 1
        nodes += _conv(form, f"{name}.conv{number}", source, conv, block, stride=stride, padded=not is_halving)
    return nodes


def _average_pool(branch: str, source: str, block: str) -> list[Node]:
    """3x3 of stride 1, dividing by 9 at the edges too."""
    pad = Node(f"{branch}.pad", Op.PAD, (source,), padding=(1, 1, 1, 1), block=block)
    return [pad, Node(f"{branch}.pool", Op.AVERAGE_POOL, (pad.name,), kernel=(3, 3), block=block)]
