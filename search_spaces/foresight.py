"""What a cost model says of a design before it is tried, and whether that is enough.

A prediction suffices for a design that surely meets its limits and is surely no member of the front; or that surely
misses a limit. Elsewhere, and for one trial in some as a check, the device is asked. Knows no trial and no database.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from search_spaces.pareto import front_indices
from search_spaces.spec import LimitSpec, ObjectiveSpec

CHECK_EVERY = 10
"""One trial in so many is measured whatever the cost model says of it."""


class WhyMeasured(StrEnum):
    """Why a trial was measured though a cost model had an answer."""

    LIMIT = "limit"  # the interval straddles a limit
    FRONT = "front"  # it may be on the front
    CHECK = "check"  # one in CHECK_EVERY
    ASKED = "asked"  # the spec wants everything measured


@dataclass(frozen=True)
class Foresight:
    """What is known of one metric of a design that has not been tried.

    Attributes:
        metric: such as `latency_s`.
        value, low, high: the prediction and its interval, to the scale that the search measures in.
        model_id, model_version: of the cost model.
        why: to measure it in any case; None where that is not known before it is scored.
        front: values of the members of the front so far.
    """

    metric: str
    value: float
    low: float
    high: float
    model_id: int
    model_version: int
    why: WhyMeasured | None
    front: Sequence[Mapping[str, float]]

    def may_join(self, values: Mapping[str, float], objectives: Sequence[ObjectiveSpec]) -> bool:
        """Whether a design with these values would be on the front, if the better end of the interval were true."""
        hoped = {**values, self.metric: self.low}
        return len(self.front) in front_indices([*self.front, hoped], objectives)

    def told(self) -> dict[str, Any]:
        """What is kept with a trial."""
        return {
            "metric": self.metric,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "model_id": self.model_id,
            "model_version": self.model_version,
            "why_measured": None if self.why is None else str(self.why),
        }

    def to_json(self) -> dict[str, Any]:
        return {**self.told(), "front": [dict(member) for member in self.front]}


def foresight_from_json(data: Mapping[str, Any]) -> Foresight:
    """Inverse of `Foresight.to_json`."""
    why = data["why_measured"]
    return Foresight(
        metric=data["metric"],
        value=data["value"],
        low=data["low"],
        high=data["high"],
        model_id=data["model_id"],
        model_version=data["model_version"],
        why=None if why is None else WhyMeasured(why),
        front=data["front"],
    )


def why_measured(
    metric: str, low: float, high: float, limits: Sequence[LimitSpec], number: int, *, always: bool
) -> WhyMeasured | None:
    """Why a trial is measured whatever it scores; None when nothing says so yet."""
    if always:
        return WhyMeasured.ASKED
    bounds = [bound for limit in limits if limit.metric == metric for bound in (limit.min, limit.max)]
    if any(bound is not None and low <= bound <= high for bound in bounds):
        return WhyMeasured.LIMIT
    return WhyMeasured.CHECK if number % CHECK_EVERY == 0 else None
