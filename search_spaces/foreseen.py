"""Limits that a design is known to keep or to miss before any work: on what `batch_costs` can tell of it.

Those on sizes and operations, and on a simulated device that is a closed form those on its latency, energy and memory
too. It must not know how designs are proposed.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from search_spaces.accelerators.models import MODELS
from search_spaces.activation_codes import CodecName
from search_spaces.batch_costs import BatchCosts, Numbers
from search_spaces.batch_shapes import Integers
from search_spaces.objectives import SYMBOLIC_METRICS
from search_spaces.space import Space
from search_spaces.spec import LimitSpec, SearchSpec

ROUNDING = 1e-9
"""Figures of devices are sums of floats, which in another order differ in their last digits: a relative allowance."""


def closed_form_device(spec: SearchSpec) -> str | None:
    """The spec's device, where what it tells of a design follows from the design alone.

    Coded activation maps are as long as images make them, and what a device moves with them.
    """
    is_coded = spec.evaluation.activation_codec is not CodecName.NONE or spec.space.activation_codec is not None
    return spec.device if spec.device in MODELS and not is_coded else None


class ForeseenLimits:
    """The limits of a spec that are judged by design alone."""

    def __init__(self, space: Space, spec: SearchSpec) -> None:
        self.costs = BatchCosts(space, closed_form_device(spec))
        self.limits: tuple[LimitSpec, ...] = tuple(one for one in spec.limits if one.metric in self.costs.metrics)
        self._metrics = sorted({limit.metric for limit in self.limits})

    def beside(self, limit: LimitSpec) -> ForeseenLimits:
        """These and one more, on something that `costs` tells."""
        both = copy.copy(self)
        both.limits = (*self.limits, limit)
        both._metrics = sorted({one.metric for one in both.limits})
        return both

    def misses(self, rows: Sequence[Sequence[int]] | Integers) -> Numbers:
        """By how much each design misses its limits, as `pareto.violations` counts, all in all; (designs,)."""
        excess = self.excess(rows)
        missed: Numbers = np.maximum(excess, 0).sum(axis=1)
        return missed

    def keep(self, rows: Sequence[Sequence[int]] | Integers) -> NDArray[np.bool_]:
        """Whether each design keeps all of them, (designs,)."""
        return np.asarray((self.excess(rows) <= 0).all(axis=1))

    def excess(self, rows: Sequence[Sequence[int]] | Integers) -> Numbers:
        """By what share of each limit a design is over it (or under, for a `min`); (designs, limits), <= 0 is kept."""
        told = self.costs(rows, self._metrics)
        columns = [excess_over(told[limit.metric], limit) for limit in self.limits]
        return np.stack(columns, axis=1) if columns else np.zeros((len(rows), 0))


def excess_over(values: Numbers, limit: LimitSpec) -> Numbers:
    """By what share of the limit each value is over it (or under, for a `min`); <= 0 is kept."""
    bound = limit.max if limit.max is not None else limit.min
    assert bound is not None, "a limit has one of the two"
    over = values - bound if limit.max is not None else bound - values
    allowance = 0.0 if limit.metric in SYMBOLIC_METRICS else ROUNDING * abs(bound)
    return (over + allowance) / (abs(bound) or 1.0)
