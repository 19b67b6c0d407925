"""Searches as the API shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel

from search_spaces.check import Checked
from search_spaces.reach import symbolic_reach
from search_spaces.spec import SearchSpec
from service.models import Search
from service.states import EndReason, SearchState
from service.trials.queries import Progress


class ActivityBody(BaseModel):
    """A long step under way; `share` is from 0 to 1."""

    stage: str
    share: float
    message: str


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
    warnings: list[str]
    waiting_for: str
    activity: ActivityBody | None
    end: EndBody | None
    evaluator_s: float
    problem: dict[str, Any] | None
    base: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


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
    warnings: list[str]
    waiting_for: str


def search_body(search: Search, progress: Progress) -> SearchBody:
    return SearchBody(
        id=search.id,
        name=search.name,
        state=search.state,
        progress=progress,
        spec=SearchSpec.model_validate(search.spec),
        warnings=[str(warning) for warning in search.warnings],
        waiting_for=search.waiting_for,
        activity=search.activity and ActivityBody.model_validate(search.activity),
        end=search.end_reason and EndBody(reason=EndReason(search.end_reason), message=search.end_message),
        evaluator_s=search.evaluator_s,
        problem=search.problem,
        base=search.base_report,
        created_at=search.created_at,
        updated_at=search.updated_at,
        started_at=search.started_at,
        finished_at=search.finished_at,
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
        warnings=list(checked.warnings),
        waiting_for=checked.waiting_for,
    )
