"""What was decided per layer, as rows of a picture: channels kept of the base's, precision, groups, bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from search_spaces.costs import layer_costs
from search_spaces.network import Network, Node, infer_shapes
from search_spaces.precision import Precision

_MOST_CUTS = 32
"""More groups than this are no more told apart in a bar."""

_HUES = ((2, "bits-2"), (4, "bits-4"), (8, "bits-8"), (16, "bits-16"), (32, "bits-32"))
"""Most weight bits of each colour, and its class."""


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One layer, as it is drawn.

    Attributes:
        channels, of: output channels, and how many the base has; the same of a layer that the base has not.
        share: of the base's channels that are kept, in percent.
        cuts: where the bar is cut into its groups, in percent of the base's channels.
        hue: the class of its colour.
        groups: in words; empty where all inputs meet all outputs.
        weight_bytes: payload, with bias and scales.
    """

    name: str
    channels: int
    of: int
    share: float
    cuts: tuple[float, ...]
    precision: str
    hue: str
    groups: str
    weight_bytes: int


@dataclass(frozen=True, slots=True)
class Hue:
    """An entry of the legend."""

    precision: str
    hue: str
    layers: int


def layer_rows(base: Network, network: Network) -> tuple[LayerRow, ...]:
    """The convs and linears of a deployed network, in order, beside those of its base."""
    before, shapes = base.by_name(), infer_shapes(network)
    sizes = {cost.name: cost.size_bytes for cost in layer_costs(network)}
    return tuple(
        _row(node, before.get(node.name, node), shapes[node.inputs[0]][0], sizes[node.name])
        for node in network.compute_nodes()
    )


def _row(node: Node, before: Node, inputs: int, size_bytes: int) -> LayerRow:
    channels = node.channels or 0
    of = max(before.channels or 0, channels)
    is_cut = 1 < node.groups <= _MOST_CUTS and node.groups < inputs
    cuts = tuple(100 * channels / of * cut / node.groups for cut in range(1, node.groups)) if is_cut else ()
    return LayerRow(
        name=node.name,
        channels=channels,
        of=of,
        share=100 * channels / of,
        cuts=cuts,
        precision=str(node.precision),
        hue=hue_of(node.precision),
        groups=_describe_groups(node.groups, inputs),
        weight_bytes=size_bytes,
    )


def _describe_groups(groups: int, inputs: int) -> str:
    if groups == 1:
        return ""
    return "depthwise" if groups == inputs else f"{groups} groups of {inputs // groups}"


def hue_of(precision: Precision) -> str:
    return next(hue for most, hue in _HUES if precision.weight_bits <= most)


def legend(rows: Iterable[LayerRow]) -> tuple[Hue, ...]:
    """The precisions that there are, with how many layers each has, most first."""
    counts: dict[tuple[str, str], int] = {}
    for row in rows:
        counts[row.precision, row.hue] = counts.get((row.precision, row.hue), 0) + 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(Hue(precision, hue, layers) for (precision, hue), layers in ordered)
