"""Designs that change one decision alone: what `greedy` tries first, to tell what each decision loses.

It must not know what was found, only what keeps the limits that are judged by design alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from search_spaces.design import METHOD_KINDS
from search_spaces.foreseen import ForeseenLimits
from search_spaces.projection import Projection
from search_spaces.sensitivity import prior_shape
from search_spaces.space import Decision, Indices, Space, base_value


@dataclass(frozen=True, slots=True)
class Anchors:
    """The designs that others differ from in one decision.

    Attributes:
        reference: of channels, bits and groups.
        made: of methods, which make no difference where nothing is pruned or rounded.
    """

    reference: Indices
    made: Indices

    def of(self, decision: Decision) -> Indices:
        return self.made if decision.kind in METHOD_KINDS else self.reference


def choose_anchors(space: Space, limits: ForeseenLimits, projection: Projection) -> Anchors | None:
    """The base where it keeps the limits, else the least changed uniform design that does, else one near the base.

    None where no design was found that keeps them.
    """
    losses = [prior_shape(decision) for decision in space.decisions]
    base = least_changed(space)
    uniform = sorted((space.indices_of(design) for design in space.uniform), key=lambda row: _loss(row, losses))
    kept = [row for row, keeps in zip(uniform, limits.keep(uniform), strict=True) if keeps] if uniform else []
    nearest = next((row for row in (base, *kept) if limits.keep([row])[0]), None) or projection(base, losses)
    return None if nearest is None else Anchors(nearest, kept[len(kept) // 2] if kept else nearest)


def least_changed(space: Space) -> Indices:
    """Of each decision the base's own choice; where it is none, the one that is thought to lose least."""
    own = [base_value(space.network, decision) for decision in space.decisions]
    return tuple(
        decision.choices.index(value) if value in decision.choices else int(np.argmin(prior_shape(decision)))
        for decision, value in zip(space.decisions, own, strict=True)
    )


def probes(space: Space, anchors: Anchors, limits: ForeseenLimits, cost: str) -> list[Indices]:
    """The anchors, then for each decision the choice farthest from its anchor, then those between, then the other end.

    Of methods all, one after the other. Among the designs of one round those come first that take least of `cost`.
    """
    by_decision = [
        [_changed(anchors.of(decision), number, choice) for choice in _spread(decision, number, anchors, limits)]
        for number, decision in enumerate(space.decisions)
    ]
    has_methods = any(decision.kind in METHOD_KINDS for decision in space.decisions)
    found = dict.fromkeys([anchors.reference, anchors.made] if has_methods else [anchors.reference])
    for together in zip_longest(*by_decision):
        rows = [row for row in together if row is not None]
        order = np.argsort(limits.costs(rows, [cost])[cost], kind="stable")
        found.update(dict.fromkeys(rows[place] for place in order))
    return list(found)


def _spread(decision: Decision, number: int, anchors: Anchors, limits: ForeseenLimits) -> Iterator[int]:
    """Choices of a decision to be tried, of those that keep the limits; the most telling first."""
    anchor = anchors.of(decision)
    others = [choice for choice in range(len(decision.choices)) if choice != anchor[number]]
    rows = np.array([_changed(anchor, number, choice) for choice in others], dtype=np.int64)
    allowed = [choice for choice, keeps in zip(others, limits.keep(rows), strict=True) if keeps]
    if decision.kind in METHOD_KINDS or len(allowed) < 3:
        yield from sorted(allowed, key=lambda choice: (-abs(choice - anchor[number]), -choice))
        return
    ends = sorted((allowed[0], allowed[-1]), key=lambda choice: -abs(choice - anchor[number]))
    middle = (anchor[number] + ends[0]) / 2
    yield from dict.fromkeys((ends[0], min(allowed, key=lambda choice: abs(choice - middle)), ends[1]))


def _changed(anchor: Indices, decision: int, choice: int) -> Indices:
    return (*anchor[:decision], choice, *anchor[decision + 1 :])


def _loss(row: Indices, losses: Sequence[np.ndarray]) -> float:
    return float(sum(loss[choice] for loss, choice in zip(losses, row, strict=True)))
