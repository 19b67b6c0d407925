"""Refinements as the API shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from search_spaces.objectives import Provenance
from service.refinements.queries import RefinementRow, is_kept
from service.states import JobState
from service.trials.wanted import MOST_TRIALS

TrialNumber = Annotated[int, Field(ge=0, le=2**31 - 1)]


class RefinementRequest(BaseModel):
    """Which trials, and for how long; without `trials`, the members of the front.

    Attributes:
        epochs: passes over the split `train`, from the weights that the trial, or its finalist, ended with.
        learning_rate: the peak; it falls to zero along a cosine.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    trials: Annotated[list[TrialNumber], Field(min_length=1, max_length=MOST_TRIALS)] | None = None
    epochs: FiniteFloat = Field(gt=0.0, le=1000.0)
    learning_rate: FiniteFloat = Field(default=0.01, gt=0.0, le=10.0)

    def settings(self) -> dict[str, float]:
        """What decides the outcome, beside the trial."""
        return {"epochs": self.epochs, "learning_rate": self.learning_rate}


class RefinementBody(BaseModel):
    """A design that is trained on for long.

    `searched` is what the trial found on `score`; `before` and `values` are on `confirm`, with 95% intervals: of the
    weights that it began with, and of those that it ended with. `kept` says whether those are the trained ones: where
    training makes a design worse on `score`, what it began with stays.
    """

    id: str
    search: str
    trial: int
    state: JobState
    reason: str
    settings: dict[str, float]
    activity: dict[str, Any] | None
    searched: dict[str, float]
    before: dict[str, float]
    values: dict[str, float]
    sources: dict[str, Provenance]
    kept: bool | None
    created_at: datetime
    finished_at: datetime | None


class RefinementPage(BaseModel):
    items: list[RefinementBody]


def refinement_body(row: RefinementRow) -> RefinementBody:
    refinement = row.refinement
    return RefinementBody(
        id=refinement.id,
        search=refinement.search_id,
        trial=row.trial.number,
        state=JobState(refinement.state),
        reason=refinement.reason,
        settings=refinement.settings,
        activity=refinement.activity,
        searched=row.trial.values,
        before=refinement.before,
        values=refinement.values,
        sources=refinement.sources,
        kept=is_kept(refinement),
        created_at=refinement.created_at,
        finished_at=refinement.finished_at,
    )
