"""Searches as the API shows them."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from search_spaces.check import Checked
from search_spaces.reach import symbolic_reach
from search_spaces.spec import MOST_TRIALS, SearchSpec
from service.models import Search
from service.searches.extensions import Extension
from service.searches.predictions import RankCorrelation
from service.searches.specs import budgets_of
from service.states import EndReason, SearchState
from service.trials.queries import Progress


class ActivityBody(BaseModel):
    """A long step under way; `share` is from 0 to 1."""

    stage: str
    share: float
    message: str


class BudgetBody(BaseModel):
    """A budget limit and what it comes to; `base` and `bound` are null until the base has been measured."""

    metric: str
    device: str | None
    at_most: float
    relative_to: str
    base: float | None
    bound: float | None


class RankCorrelationBody(BaseModel):
    """Spearman's, of a score as it was predicted before trials ran and as they found it; null while there are few."""

    metric: str
    trials: int
    value: float | None


class SamplerBody(BaseModel):
    """The sampler that the search has, why where it was chosen, and how well it predicts, where it does."""

    name: str
    why: str
    rank_correlation: RankCorrelationBody | None


class ExtensionBody(BaseModel):
    """What was added to the budget once the search was over."""

    at: datetime
    trials: int
    wall_time_s: float | None


class EndBody(BaseModel):
    """Why no more trials are asked for: in one word, and for people."""

    reason: EndReason
    message: str


class SearchBody(BaseModel):
    """A search. `problem` says why a failed one failed; `base` is the report on its trained network.

    `end` is there once no more trials are asked for; `evaluator_s` is what its trials have taken so far, all together.
    """

    id: str
    name: str
    state: SearchState
    progress: Progress
    spec: SearchSpec
    sampler: SamplerBody
    budgets: list[BudgetBody]
    warnings: list[str]
    waiting_for: str
    activity: ActivityBody | None
    end: EndBody | None
    evaluator_s: float
    problem: dict[str, Any] | None
    base: dict[str, Any] | None
    extensions: list[ExtensionBody]
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class ExtensionRequest(BaseModel):
    """What is added to the budget of a search that is over.

    Attributes:
        trials: that the sampler may propose beyond those that there are.
        wall_time_s: for the extension alone; default: what the spec gives a search, counted from now.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    trials: int = Field(ge=1, le=MOST_TRIALS)
    wall_time_s: FiniteFloat | None = Field(default=None, gt=0.0)

    def extension(self) -> Extension:
        return Extension(self.trials, self.wall_time_s)


class SearchPage(BaseModel):
    items: list[SearchBody]
    next_page_token: str | None


class DecisionBody(BaseModel):
    name: str
    kind: str
    choices: list[int | str]


class RangeBody(BaseModel):
    least: float
    greatest: float


class CheckBody(BaseModel):
    """What a spec would search, without searching it.

    `size` is the number of designs; `ranges` bounds the metrics that are known without work.
    """

    size: int
    decisions: list[DecisionBody]
    baseline_trials: int
    ranges: dict[str, RangeBody]
    budgets: list[BudgetBody]
    warnings: list[str]
    waiting_for: str


def search_body(search: Search, progress: Progress, ranked: RankCorrelation | None) -> SearchBody:
    return SearchBody(
        id=search.id,
        name=search.name,
        state=search.state,
        progress=progress,
        spec=SearchSpec.model_validate(search.spec),
        sampler=sampler_body(search, ranked),
        budgets=[BudgetBody(**one.model_dump(), bound=one.bound) for one in budgets_of(search)],
        warnings=[str(warning) for warning in search.warnings],
        waiting_for=search.waiting_for,
        activity=search.activity and ActivityBody.model_validate(search.activity),
        end=search.end_reason and EndBody(reason=EndReason(search.end_reason), message=search.end_message),
        evaluator_s=search.evaluator_s,
        problem=search.problem,
        base=search.base_report,
        extensions=[ExtensionBody.model_validate(one) for one in search.extensions],
        created_at=search.created_at,
        updated_at=search.updated_at,
        started_at=search.started_at,
        finished_at=search.finished_at,
    )


def sampler_body(search: Search, ranked: RankCorrelation | None) -> SamplerBody:
    correlation = None if ranked is None else RankCorrelationBody(**asdict(ranked))
    named = search.spec.get("sampler", {}).get("name", "")  # of searches from before samplers were chosen
    return SamplerBody(
        name=search.sampler.get("name", named), why=search.sampler.get("why", ""), rank_correlation=correlation
    )


def check_body(checked: Checked) -> CheckBody:
    space = checked.space
    return CheckBody(
        size=space.size(),
        decisions=[DecisionBody(name=one.name, kind=one.kind, choices=list(one.choices)) for one in space.decisions],
        baseline_trials=len(space.uniform),
        ranges={
            str(metric): RangeBody(least=reach.least, greatest=reach.greatest)
            for metric, reach in symbolic_reach(space).items()
        },
        budgets=[BudgetBody(**one.model_dump(), bound=one.bound) for one in checked.budgets],
        warnings=list(checked.warnings),
        waiting_for=checked.waiting_for,
    )
