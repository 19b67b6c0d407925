"""What a space can reach: bounds on the metrics that need neither weights nor a device."""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces.apply import apply
from search_spaces.costs import layer_costs, symbolic_values
from search_spaces.design import EVERY_LAYER, Design, Kind, decision_name
from search_spaces.network import Network
from search_spaces.objectives import Metric
from search_spaces.space import Space

_PRECISION_KINDS = frozenset({Kind.PRECISION, Kind.WEIGHT_BITS, Kind.ACTIVATION_BITS})


@dataclass(frozen=True, slots=True)
class Reach:
    """The least and the greatest value of a metric over a space."""

    least: float
    greatest: float


def symbolic_reach(space: Space) -> dict[str, Reach]:
    """Bounds of each symbolic metric over all designs.

    Every such metric grows with channel counts and group sizes, so that only two shapes matter. At a given
    shape, traffic and peak grow with the activation bits, so that the extremes are among the networks
    with one choice everywhere. Size is a sum over layers, bounded by each layer's own extremes: no design
    lies outside of the bounds, and they are reached where each layer is a decision or layers agree.

    A group size of the whole network becomes the nearest that divides what pruning leaves, which need not grow with
    the channels: where both are varied, the bounds are of depthwise and of dense layers, and are not reached.
    """
    smallest = _profiles(space, smallest=True)
    largest = _profiles(space, smallest=False)
    low, high = ([symbolic_values(network) for network in networks] for networks in (smallest, largest))
    reach = {name: Reach(min(v[name] for v in low), max(v[name] for v in high)) for name in low[0]}
    reach[Metric.SIZE_BYTES] = Reach(_size_bound(smallest, least=True), _size_bound(largest, least=False))
    return reach


def _profiles(space: Space, *, smallest: bool) -> list[Network]:
    """The networks of the smallest or the largest shape, one for each precision, the same everywhere."""
    levels = max((len(d.choices) for d in space.decisions if d.kind in _PRECISION_KINDS), default=1)
    networks = []
    for level in range(levels):
        indices = []
        for decision in space.decisions:
            last = len(decision.choices) - 1
            if decision.kind in _PRECISION_KINDS:
                indices.append(min(level, last))
            else:  # Channels descend, group sizes ascend.
                indices.append(last if smallest == (decision.kind is Kind.CHANNELS) else 0)
        networks.append(apply(space.network, _bounding(space, space.design_at(indices), smallest)))
    return networks


_DENSE = 2**31
"""A group size that no layer has: the nearest is all of its channels."""


def _bounding(space: Space, design: Design, smallest: bool) -> Design:
    kinds = {decision.kind for decision in space.decisions}
    repaired = {decision_name(kind, EVERY_LAYER) for kind in (Kind.GROUP_SIZE, Kind.GROUPS)}
    if Kind.CHANNELS not in kinds or repaired.isdisjoint(decision.name for decision in space.decisions):
        return design
    kept = {name: value for name, value in design.items() if name not in repaired}
    return Design.of({**kept, decision_name(Kind.GROUP_SIZE, EVERY_LAYER): 1 if smallest else _DENSE})


def _size_bound(networks: list[Network], *, least: bool) -> float:
    rows = [layer_costs(network) for network in networks]
    bound = symbolic_values(networks[0])[Metric.SIZE_BYTES] - sum(layer.size_bytes for layer in rows[0])
    for layers in zip(*rows, strict=True):
        sizes = [layer.size_bytes for layer in layers]
        bound += min(sizes) if least else max(sizes)
    return bound
