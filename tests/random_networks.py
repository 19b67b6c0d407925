"""Hypothesis strategies of small networks with every op, and of designs for them. Shared by all test folders."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from search_spaces.apply import structure_of
from search_spaces.design import Design, Value
from search_spaces.network import ACTIVATION_OPS, InputContract, Network, Node, Op, Shape, infer_shapes

CLASSES = 3


class Draft:
    """Nodes so far. Every step reads the last tensor, so that no node is dead."""

    def __init__(self, draw: st.DrawFn, shape: Shape) -> None:
        self.draw = draw
        self.input = InputContract(shape, (0.4,) * shape[0], (0.3,) * shape[0])
        self.nodes = [Node("input", Op.INPUT)]
        self.shapes: dict[str, Shape] = {"input": shape}

    @property
    def last(self) -> str:
        return self.nodes[-1].name

    @property
    def shape(self) -> Shape:
        return self.shapes[self.last]

    def add(self, op: Op, *inputs: str, **attributes: object) -> str:
        node = Node(f"{op}{len(self.nodes)}", op, inputs or (self.last,), block=f"block{len(self.nodes) // 4}")
        self.nodes.append(replace(node, **attributes))
        self.shapes = infer_shapes(self.network())
        return self.last

    def network(self) -> Network:
        return Network("random", self.input, tuple(self.nodes), self.last)

    def drawn(self, *choices: object) -> object:
        return self.draw(st.sampled_from(choices))


def _conv(draft: Draft) -> None:
    kernel = draft.drawn(1, 3)
    channels = draft.drawn(4, 8, 12)
    fitting = [g for g in (1, 2, 4) if draft.shape[0] % g == 0 and g != draft.shape[0]]
    stride = draft.drawn(1, 1, 2)
    draft.add(
        Op.CONV,
        channels=channels,
        kernel=(kernel, kernel),
        stride=(stride, stride),
        padding=(kernel // 2,) * 4 if draft.draw(st.booleans()) or kernel > min(draft.shape[1:]) else (0,) * 4,
        groups=draft.drawn(1, *fitting),
        dilation=(2, 2) if kernel == 3 and min(draft.shape[1:]) >= 5 and draft.draw(st.booleans()) else (1, 1),
        bias=draft.draw(st.booleans()),
    )


def _depthwise(draft: Draft) -> None:
    channels, multiplier = draft.shape[0], draft.drawn(1, 1, 2)
    if 1 < channels <= 12:
        draft.add(Op.CONV, channels=channels * multiplier, kernel=(3, 3), padding=(1, 1, 1, 1), groups=channels)


def _elementwise(draft: Draft) -> None:
    draft.add(draft.drawn(Op.BATCH_NORM, *sorted(ACTIVATION_OPS)))


def _join(draft: Draft) -> None:
    """Add or concatenate the last tensor with an earlier one that fits."""
    op, shape = draft.drawn(Op.ADD, Op.MULTIPLY, Op.CONCAT), draft.shape
    fits = {name for name, other in draft.shapes.items() if other[1:] == shape[1:]}
    if op is not Op.CONCAT:
        fits = {name for name in fits if draft.shapes[name] == shape}
    others = sorted(fits - {draft.last})
    if others and not (op is Op.CONCAT and shape[0] > 24):
        draft.add(op, draft.last, draft.drawn(*others))


def _residual(draft: Draft) -> None:
    source, channels = draft.last, draft.shape[0]
    draft.add(Op.CONV, channels=channels, kernel=(3, 3), padding=(1, 1, 1, 1))
    draft.add(Op.BATCH_NORM)
    draft.add(Op.ADD, draft.last, source)


def _squeeze_and_excite(draft: Draft) -> None:
    source, channels = draft.last, draft.shape[0]
    draft.add(Op.GLOBAL_AVERAGE_POOL)
    draft.add(Op.CONV, channels=4, bias=True)
    draft.add(Op.RELU)
    draft.add(Op.CONV, channels=channels, bias=True)
    draft.add(Op.SIGMOID)
    draft.add(Op.MULTIPLY, source, draft.last)


def _shuffle(draft: Draft) -> None:
    fitting = [groups for groups in (2, 4) if draft.shape[0] % groups == 0]
    if fitting:
        draft.add(Op.SHUFFLE, groups=draft.drawn(*fitting))


def _split(draft: Draft) -> None:
    """Two parts of a tensor, one of them worked on, joined and shuffled (ShuffleNet-V2)."""
    source, channels = draft.last, draft.shape[0]
    if channels % 4 or channels > 24:
        return
    left = draft.add(Op.SLICE, source, channels=channels // 2)
    draft.add(Op.SLICE, source, channels=channels // 2, start=channels // 2)
    draft.add(Op.CONV, channels=channels // 2)
    draft.add(Op.RELU)
    draft.add(Op.CONCAT, left, draft.last)
    draft.add(Op.SHUFFLE, groups=2)


def _middle(draft: Draft) -> None:
    """Some of the channels, with others before and after them."""
    if draft.shape[0] > 2:
        first = draft.draw(st.integers(0, draft.shape[0] - 2))
        draft.add(Op.SLICE, start=first, channels=draft.draw(st.integers(1, draft.shape[0] - first)))


def _pad(draft: Draft) -> None:
    if max(draft.shape[1:]) <= 10:
        draft.add(Op.PAD, padding=draft.drawn((1, 1, 1, 1), (0, 1, 2, 0)))


def _pool(draft: Draft) -> None:
    if min(draft.shape[1:]) >= 3:
        size = draft.drawn(2, 3)
        padding = draft.drawn((0, 0, 0, 0), (1, 1, 1, 1)) if size == 3 else (0, 0, 0, 0)
        draft.add(draft.drawn(Op.MAX_POOL, Op.AVERAGE_POOL), kernel=(size, size), stride=(2, 2), padding=padding)


_STEPS = (
    *(_conv, _conv, _depthwise, _elementwise, _elementwise, _join, _residual),
    *(_squeeze_and_excite, _shuffle, _split, _middle, _pad, _pool),
)


@st.composite
def networks(draw: st.DrawFn, max_steps: int = 8) -> Network:
    """A network of a few random steps and a classifier of 3 classes; at most 8x8 maps."""
    side = draw(st.integers(3, 8))
    draft = Draft(draw, (draw(st.integers(1, 3)), side, side))
    draft.add(Op.CONV, channels=draft.drawn(4, 8, 12), kernel=(3, 3), padding=(1, 1, 1, 1))
    for step in draw(st.lists(st.sampled_from(_STEPS), min_size=1, max_size=max_steps)):
        step(draft)
    if draw(st.booleans()):
        draft.add(Op.GLOBAL_AVERAGE_POOL)
    draft.add(Op.FLATTEN)
    if draw(st.booleans()):
        draft.add(Op.LINEAR, channels=draft.drawn(6, 9), bias=draw(st.booleans()))
        draft.add(Op.RELU)
    draft.add(Op.LINEAR, channels=CLASSES, bias=True)
    return draft.network()


@st.composite
def designs(draw: st.DrawFn, network: Network) -> Design:
    """Any design that fits the network: channels, precision of blocks, group sizes."""
    structure = structure_of(network)
    values: dict[str, Value] = {}
    for group in structure.coupling.groups:
        if not group.frozen and draw(st.booleans()):
            steps = group.size // group.multiple_of
            values[f"channels/{group.name}"] = group.multiple_of * draw(st.integers(1, steps))
    for block in sorted({node.block for node in structure.layers.values()}):
        if draw(st.booleans()):
            values[f"precision/{block}"] = "w8a8"
    for layer in sorted(structure.depthwise):
        kept = structure.coupling.channels_per_atom[structure.layers[layer].inputs[0]]
        groups = [structure.coupling.groups[index] for index, _ in kept]
        counts = [
            values.get(f"channels/{group.name}", group.size) * per for group, (_, per) in zip(groups, kept, strict=True)
        ]
        if sum(counts) % 2 == 0 and draw(st.booleans()):
            values[f"group_size/{layer}"] = 2
    return Design.of(values)
