"""What each choice of a design loses, told by changing decisions alone and corrected by whole designs.

Finer than `search_spaces.sensitivity`, for a sampler that makes such changes: they give the shape of each decision's
loss, all that was told its size, and what is left over goes to single choices where the same ones are often there. It
must not know how designs are proposed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from search_spaces.sensitivity import LEAST_SHARE, Sensitivity, prior_shape
from search_spaces.space import Decision, Indices

Numbers = NDArray[np.float64]

RIDGE = 1.0
"""How many trials' worth of evidence it counts that a choice loses what shape and size say."""
AS_BAD_AS_CAN_BE = 0.1
"""Of the range of qualities, from the least on: how bad that is cannot be told, as of a network that guesses."""


def choice_losses(
    decisions: Sequence[Decision], anchors: Sequence[Indices], heard: Mapping[Indices, float]
) -> list[Numbers]:
    """What each choice of each decision loses, in the unit of quality.

    Args:
        decisions: of a space.
        anchors: for each decision the design that changes of it are told from.
        heard: the quality of designs, higher where better.
    """
    shapes = measured_shapes(decisions, anchors, heard)
    model = Sensitivity(decisions, shapes)
    if not heard:
        return model.losses()
    rows, qualities = np.array(list(heard), dtype=np.int64), np.array(list(heard.values()))
    telling = _are_telling(rows, qualities, shapes)
    rows, qualities = rows[telling], qualities[telling]
    model.add_all(rows, qualities)
    losses = model.losses()
    corrected = [loss - gain for loss, gain in zip(losses, _remainders(rows, qualities, losses), strict=True)]
    return [np.maximum(new - new.min(), LEAST_SHARE * loss) for new, loss in zip(corrected, losses, strict=True)]


def _are_telling(rows: NDArray[np.int64], qualities: Numbers, shapes: Sequence[Numbers]) -> NDArray[np.bool_]:
    """All designs but those that are as bad as can be and were thought to be: how bad they are does not show."""
    foretold = qualities.max() - _summed(rows, shapes)
    worst = qualities.min() + AS_BAD_AS_CAN_BE * np.ptp(qualities)
    return np.asarray((qualities >= worst) | (foretold >= qualities))


def _summed(rows: NDArray[np.int64], losses: Sequence[Numbers]) -> Numbers:
    total: Numbers = np.stack([loss[column] for loss, column in zip(losses, rows.T, strict=True)]).sum(axis=0)
    return total


def _remainders(rows: NDArray[np.int64], qualities: Numbers, losses: Sequence[Numbers]) -> list[Numbers]:
    """How much better each choice was than the losses say, by ridge regression on choices towards nothing."""
    left = qualities + _summed(rows, losses)
    chosen = np.concatenate([np.eye(len(loss))[column] for loss, column in zip(losses, rows.T, strict=True)], axis=1)
    found = np.linalg.solve(chosen.T @ chosen + RIDGE * np.eye(chosen.shape[1]), chosen.T @ (left - left.mean()))
    return np.split(found, np.cumsum([len(loss) for loss in losses])[:-1])


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
