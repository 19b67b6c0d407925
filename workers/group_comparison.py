"""Constant group size against a constant number of groups at equal MACs (E2GC's claim): what each takes on a device.

The two spend their MACs in different layers, so that at equal MACs weights, traffic and the shapes that kernels get
differ (Jha et al., arXiv 2006.15100). Networks are untrained: what they take does not depend on their weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from search_spaces.apply import apply
from search_spaces.cost_models.balance import grouped_convs
from search_spaces.costs import macs, parameters
from search_spaces.design import EVERY_LAYER, Design, Kind, decision_name
from search_spaces.network import Network, in_precision
from search_spaces.objectives import DEVICE_METRICS, Metric
from search_spaces.precision import Precision
from search_spaces.quantisation import foldable_norms, without_norms
from workers.hardware.base import Anchor, Deployed, Device
from workers.hardware.timing import DEFAULT_PROTOCOL
from workers.host_lock import measuring
from workers.profile import deploy_untrained

MATCHED_WITHIN = 0.02
"""Pairs whose MACs differ by more are not compared."""


class Scheme(StrEnum):
    """What is the same in all layers."""

    CONSTANT_SIZE = "constant size"  # G channels per group: E2GC
    CONSTANT_NUMBER = "constant number"  # g groups: FgGC, as in ResNeXt


_KINDS = {Scheme.CONSTANT_SIZE: Kind.GROUP_SIZE, Scheme.CONSTANT_NUMBER: Kind.GROUPS}


def grouped_design(scheme: Scheme, number: int) -> Design:
    """The design with one group size, or one number of groups, in all layers that have groups."""
    return Design.of({decision_name(_KINDS[scheme], EVERY_LAYER): number})


def matched_pairs(network: Network, sizes: Sequence[int], numbers: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """(G, g) of equal MACs: for each size the number that is nearest, where it is within `MATCHED_WITHIN`."""
    by_number = {number: _macs(network, Scheme.CONSTANT_NUMBER, number) for number in numbers}
    pairs = []
    for size in sizes:
        wanted = _macs(network, Scheme.CONSTANT_SIZE, size)
        distance, number = min((abs(found / wanted - 1), number) for number, found in by_number.items())
        if distance <= MATCHED_WITHIN:
            pairs.append((size, number))
    return tuple(pairs)


def _macs(network: Network, scheme: Scheme, number: int) -> int:
    return macs(apply(network, grouped_design(scheme, number)))


@dataclass(frozen=True)
class GroupedFigures:
    """A network of one scheme on a device.

    Attributes:
        number: G or g.
        macs, parameters: of one inference.
        intensities: least and greatest MACs per moved value among its grouped layers.
        figures: what the device tells, such as `latency_s` and `energy_j`.
    """

    scheme: Scheme
    number: int
    macs: int
    parameters: int
    intensities: tuple[float, float]
    figures: Mapping[Metric, float]


@dataclass(frozen=True)
class Comparison:
    """A pair of equal MACs on a device; a ratio above 1 says that constant size takes less."""

    network: str
    device: str
    precision: str
    constant_size: GroupedFigures
    constant_number: GroupedFigures

    def ratios(self) -> dict[Metric, float]:
        """Constant number over constant size, of each figure."""
        ours, theirs = self.constant_size.figures, self.constant_number.figures
        return {metric: theirs[metric] / ours[metric] for metric in ours if metric in theirs}

    def to_json(self) -> dict[str, Any]:
        return {
            "network": self.network,
            "device": self.device,
            "precision": self.precision,
            **{scheme.replace(" ", "_"): _to_json(getattr(self, scheme.replace(" ", "_"))) for scheme in Scheme},
            "ratios": {str(metric): ratio for metric, ratio in self.ratios().items()},
        }


def _to_json(one: GroupedFigures) -> dict[str, Any]:
    figures = {str(metric): value for metric, value in one.figures.items()}
    return {
        "number": one.number,
        "macs": one.macs,
        "parameters": one.parameters,
        "intensities": list(one.intensities),
        **figures,
    }


def compare_groupings(
    network: Network, pairs: Sequence[tuple[int, int]], device: Device, precision: Precision
) -> Iterator[Comparison]:
    """What each pair takes, one after the other.

    A device that measures alternates every network with the base, and is alone on this machine meanwhile.

    Args:
        network: with depthwise or grouped convs.
        pairs: (G, g), as of `matched_pairs`.
        device: that executes the precision.
        precision: of all layers.
    """
    base = in_precision(network, precision)
    anchor = None if device.capabilities().simulated else _anchor(base, device)
    for size, number in pairs:
        yield Comparison(
            network.name,
            device.capabilities().name,
            str(precision),
            _tell(base, Scheme.CONSTANT_SIZE, size, device, anchor),
            _tell(base, Scheme.CONSTANT_NUMBER, number, device, anchor),
        )


def _anchor(base: Network, device: Device) -> Anchor:
    deployed = deploy_untrained(base, DEFAULT_PROTOCOL)
    with measuring():
        return Anchor(deployed, device.measure(deployed)[Metric.LATENCY_S].median)


def _tell(base: Network, scheme: Scheme, number: int, device: Device, anchor: Anchor | None) -> GroupedFigures:
    network = apply(base, grouped_design(scheme, number))
    simulated = device.capabilities().simulated
    deployed = (
        Deployed(without_norms(network, foldable_norms(network)))
        if simulated
        else deploy_untrained(network, DEFAULT_PROTOCOL)
    )
    with nullcontext() if simulated else measuring():
        results = device.measure(deployed, anchor, wanted=DEVICE_METRICS)
    intensities = [conv.arithmetic_intensity for conv in grouped_convs(network).values()]
    return GroupedFigures(
        scheme,
        number,
        macs(network),
        parameters(network),
        (min(intensities), max(intensities)),
        {metric: result.median for metric, result in results.items()},
    )
