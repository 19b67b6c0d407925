"""Budgets: limits that a spec gives as shares, what they come to, and certificates that designs keep them.

"At most half of the base's MACs" becomes a limit of so many MACs: at once where the design alone decides, and once the
base has been measured where a device does. From then on it is a limit like any other. It must not know a database.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from search_spaces.accelerators.models import MODELS, simulate
from search_spaces.costs import symbolic_values
from search_spaces.foreseen import closed_form_device
from search_spaces.network import Network, in_precision
from search_spaces.objectives import SYMBOLIC_METRICS, Metric
from search_spaces.precision import parse_precision
from search_spaces.spec import BASE, BudgetLimitSpec, LimitSpec, SearchSpec


class Budget(BaseModel):
    """A budget limit and what it comes to.

    Attributes:
        base: what the whole network takes, in the metric's own unit; None until it has been measured.
        at_most: the share of it that a design may take.
        relative_to: `base`, or the precision that the whole network was in.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: str
    device: str | None
    at_most: float
    relative_to: str
    base: float | None

    @property
    def bound(self) -> float | None:
        """The most that a design may take."""
        return None if self.base is None else self.at_most * self.base

    @property
    def key(self) -> str:
        """Names what it is relative to, for whoever measures that."""
        return f"{self.metric} {self.relative_to}"


@dataclass(frozen=True, slots=True)
class Certificate:
    """What one design takes of one limit, recomputed from the network that it leads to.

    Attributes:
        value: of the design, after all rounding.
        at_most: the limit.
        share: of what a budget is relative to; None for a limit that is no share.
    """

    metric: str
    value: float
    at_most: float
    share: float | None

    @property
    def is_kept(self) -> bool:
        return self.value <= self.at_most

    def to_json(self) -> dict[str, float | str | bool | None]:
        return {
            "metric": self.metric,
            "value": self.value,
            "at_most": self.at_most,
            "share": self.share,
            "kept": self.is_kept,
        }


def budgets_of(spec: SearchSpec, network: Network) -> tuple[Budget, ...]:
    """The budgets of a spec that was checked; those that the network alone decides are told what they come to."""
    device = closed_form_device(spec)
    return tuple(
        Budget(
            metric=one.metric,
            device=one.device,
            at_most=one.at_most,
            relative_to=one.relative_to,
            base=_symbolic_base(one, network, device),
        )
        for one in spec.budget_limits
    )


def settled(budgets: Sequence[Budget], measured: Mapping[str, float]) -> tuple[Budget, ...]:
    """With what was measured, by `Budget.key`; what was not stays open."""
    return tuple(
        one if one.base is not None else one.model_copy(update={"base": measured.get(one.key)}) for one in budgets
    )


def with_budgets(spec: SearchSpec, budgets: Sequence[Budget]) -> SearchSpec:
    """The spec with limits instead of its budgets, as far as is known what they come to."""
    limits = [
        LimitSpec(metric=one.metric, max=one.bound, device=one.device) for one in budgets if one.bound is not None
    ]
    return spec.model_copy(update={"limits": (*spec.limits, *limits), "budget_limits": ()})


def certify(network: Network, spec: SearchSpec, budgets: Sequence[Budget]) -> Iterator[Certificate]:
    """What a network takes of all limits that need no work to be judged.

    Args:
        network: that a design leads to.
        spec: with limits instead of its budgets.
        budgets: of the spec.
    """
    bounded = [one.base for one in budgets if one.bound is not None]
    bases = [None] * (len(spec.limits) - len(bounded)) + bounded  # as `with_budgets` puts them
    values = _values(network, closed_form_device(spec))
    for limit, whole in zip(spec.limits, bases, strict=True):
        if limit.max is not None and limit.metric in values:
            value = values[limit.metric]
            yield Certificate(limit.metric, value, limit.max, None if whole is None else value / whole)


def _symbolic_base(limit: BudgetLimitSpec, network: Network, device: str | None) -> float | None:
    if limit.metric not in SYMBOLIC_METRICS and device is None:
        return None
    if limit.relative_to != BASE:
        network = in_precision(network, parse_precision(limit.relative_to))
    elif limit.metric not in SYMBOLIC_METRICS and device is not None:
        # A device that computes in no floats tells the base in the first precision that it lists.
        network = in_precision(network, parse_precision(MODELS[device].capabilities.precisions[0]))
    return _values(network, device if limit.metric not in SYMBOLIC_METRICS else None)[limit.metric]


def _values(network: Network, device: str | None) -> dict[str, float]:
    told: dict[Metric, float] = {} if device is None else simulate(device, network)
    return {**symbolic_values(network), **{str(metric): value for metric, value in told.items()}}
