"""Estimates as the API takes and shows them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from search_spaces.objectives import Provenance
from search_spaces.spec import AnyNetworkSpec, Name, SearchSpec

MOST_DESIGNS = 100


class EstimateRequest(BaseModel):
    """Either a whole `spec`, or a `network` and a `device`; of a spec's space designs can be drawn.

    Attributes:
        classes: of a catalog network that comes without a spec.
        designs: decisions to values; none at all: the network itself.
        sample: how many designs to draw at random from the spec's space.
        seed: of that.
        allow_stale: use what was measured before the device changed, too.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    spec: SearchSpec | None = None
    network: AnyNetworkSpec | None = None
    device: Name | None = None
    classes: int = Field(default=10, ge=1, le=100_000)
    designs: tuple[dict[str, int | str], ...] = Field(default=(), max_length=MOST_DESIGNS)
    sample: Annotated[int, Field(ge=0, le=MOST_DESIGNS)] = 0
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    allow_stale: bool = False

    @model_validator(mode="after")
    def _one_of_both(self) -> EstimateRequest:
        if (self.spec is None) == (self.network is None):
            raise ValueError("give either a spec, or a network")
        if self.sample and self.spec is None:
            raise ValueError("a sample is drawn from the space of a spec: give one")
        return self


class IntervalBody(BaseModel):
    """What holds nine of ten measurements."""

    low: float
    high: float


class EstimateBody(BaseModel):
    """What one design costs.

    `values` are by metric; `sources` says of each that the device tells where it comes from: measured, imported,
    simulated or predicted; `intervals` are of predictions; `stale` names those that are of what the device was before
    it changed; `missing` says why a metric has no value.
    """

    design: dict[str, int | str]
    values: dict[str, float]
    sources: dict[str, Provenance]
    intervals: dict[str, IntervalBody]
    stale: list[str]
    missing: dict[str, str]


class EstimatesBody(BaseModel):
    """Estimates, in the order asked for; `cost_model` is the version that predicted, if one did."""

    device: str | None
    cost_model: int | None
    items: list[EstimateBody]
