"""What each choice of a design is thought to cost in quality: a prior by kind, corrected by what was found.

The loss of a design is taken to be a sum over its decisions, w_d phi_d(choice): phi_d is the shape of the loss and w_d
its size, which is learned by ridge regression towards one common size. As bad as any additive model where losses
compound, it orders choices well enough to spend a budget by, and knows something before the first trial.

The shapes: pruning removes what ranks lowest first, so the loss grows with the square of the share removed. Rounding to
b bits adds noise of amplitude 2^-b. Where designs have been tried that differ from one another in one decision only,
the shape is what they tell (`measured_shapes`). It must not know samplers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from search_spaces.design import METHOD_KINDS, Kind
from search_spaces.precision import parse_precision
from search_spaces.space import Decision, Indices

Numbers = NDArray[np.float64]

RIDGE = 2.0
"""How many trials' worth of evidence the common size of losses counts."""
LEAST_SHARE = 0.02
"""Of the common size, that a decision is thought to cost at least: no measured loss is noise or luck."""
FEWEST_BITS = 2


class Sensitivity:
    """Learns from (choice indices, quality) pairs; quality is higher where better, on any scale.

    `shapes` are the phi of each decision, where others are known than `prior_shape`.
    """

    def __init__(self, decisions: Sequence[Decision], shapes: Sequence[Numbers] | None = None) -> None:
        self._shapes = [prior_shape(decision) for decision in decisions] if shapes is None else list(shapes)
        size = len(decisions) + 1
        self._products = np.zeros((size, size))
        self._targets = np.zeros(size)

    def add(self, indices: Sequence[int], quality: float) -> None:
        row = np.array([1.0, *(shape[index] for shape, index in zip(self._shapes, indices, strict=True))])
        self._products += np.outer(row, row)
        self._targets += quality * row

    def losses(self) -> list[Numbers]:
        """What each choice of each decision is thought to cost; in the unit of quality once trials were added."""
        return [size * shape for size, shape in zip(self.sizes(), self._shapes, strict=True)]

    def sizes(self) -> Numbers:
        """W of each decision, (decisions,); all 1 before anything is known."""
        count = self._products[0, 0]
        if count < 2 or len(self._shapes) == 0:
            return np.ones(len(self._shapes))
        mean, mean_target = self._products[0, 1:] / count, self._targets[0] / count
        products = self._products[1:, 1:] - count * np.outer(mean, mean)
        targets = -(self._targets[1:] - count * mean * mean_target)
        common = max(targets.sum(), 0.0) / (products.sum() + 1e-9)
        if not common > 0:
            return np.ones(len(self._shapes))
        strength = RIDGE * np.maximum(np.diag(products).mean() / count, 1e-9)
        found = common + np.linalg.solve(
            products + strength * np.eye(len(targets)), targets - products @ np.full(len(targets), common)
        )
        sizes: Numbers = np.maximum(found, LEAST_SHARE * common)
        return sizes


def measured_shapes(
    decisions: Sequence[Decision], anchors: Sequence[Indices], heard: Mapping[Indices, float]
) -> list[Numbers]:
    """Phi of each decision in the unit of quality: what changing it alone has cost, and between that as by its prior.

    A decision that was not changed alone has its prior, as large as those of the others are on average.

    Args:
        decisions: of a space.
        anchors: for each decision the design that changes of it are told from.
        heard: the quality of designs, among them those that differ from an anchor in one decision.
    """
    priors = [prior_shape(decision) for decision in decisions]
    told = _losses_alone(anchors, heard)
    curves = [
        _through(prior, {anchor[number]: 0.0, **told[number]}) if told[number] else None
        for number, (prior, anchor) in enumerate(zip(priors, anchors, strict=True))
    ]
    pairs = [(curve, prior) for curve, prior in zip(curves, priors, strict=True) if curve is not None and prior.any()]
    typical = float(np.mean([curve.max() / prior.max() for curve, prior in pairs])) if pairs else 0.0
    return [
        (typical or 1.0) * prior if curve is None else np.maximum(curve, LEAST_SHARE * typical * prior)
        for curve, prior in zip(curves, priors, strict=True)
    ]


def _losses_alone(anchors: Sequence[Indices], heard: Mapping[Indices, float]) -> list[dict[int, float]]:
    """What was lost where only one decision was changed: of each, by its choice."""
    told: list[dict[int, float]] = [{} for _ in anchors]
    rows, qualities = np.array(list(heard), dtype=np.int64), list(heard.values())
    for anchor in set(anchors) & heard.keys():
        changed = rows != anchor
        for number in np.flatnonzero(changed.sum(axis=1) == 1):
            decision = int(np.argmax(changed[number]))
            if anchors[decision] == anchor:
                told[decision][int(rows[number, decision])] = heard[anchor] - qualities[number]
    return told


def _through(prior: Numbers, losses: Mapping[int, float]) -> Numbers:
    """Through the losses told by choice, linear in the prior between and beyond them, and never falling with it.

    Without a prior, as with methods, what was not told loses as much as the anchor does.
    """
    choices = np.array(sorted(losses))
    known = np.array([losses[choice] for choice in choices])
    curve = np.zeros(len(prior))
    if not prior.any():
        curve[choices] = known
    else:
        places, place = np.unique(prior[choices], return_inverse=True)
        heights = np.maximum.accumulate(np.bincount(place, known) / np.bincount(place))
        curve = np.interp(prior, places, heights)
        if len(places) > 1:
            slope = (heights[-1] - heights[0]) / (places[-1] - places[0])
            curve += slope * (np.maximum(prior - places[-1], 0) + np.minimum(prior - places[0], 0))
    lowest: Numbers = curve - curve.min()
    return lowest


def prior_shape(decision: Decision) -> Numbers:
    """Phi of each choice, (choices,): 0 where nothing is lost, about 1 where most is."""
    if decision.kind in METHOD_KINDS:
        return np.zeros(len(decision.choices))
    shape: Numbers
    match decision.kind:
        case Kind.CHANNELS:
            counts = np.array(decision.choices, dtype=np.float64)
            shape = (1 - counts / counts.max()) ** 2
        case Kind.PRECISION:
            shape = np.array([_noise_of(str(choice)) for choice in decision.choices])
        case Kind.WEIGHT_BITS | Kind.ACTIVATION_BITS:
            shape = np.array([_noise(int(choice)) for choice in decision.choices])
        case _:  # G, or g: more channels a group mix more, and cost more
            sizes = np.array(decision.choices, dtype=np.float64)
            mixing = sizes / sizes.max() if decision.kind is Kind.GROUP_SIZE else sizes.min() / sizes
            shape = 0.1 * (1 - mixing)
    shape -= shape.min()
    return shape


def _noise(bits: int) -> float:
    return float(2.0 ** (FEWEST_BITS - bits))


def _noise_of(precision: str) -> float:
    read = parse_precision(precision)
    return (_noise(read.weight_bits) + _noise(read.activation_bits)) / 2
