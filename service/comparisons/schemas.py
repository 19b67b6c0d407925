"""Comparisons as the API shows them."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel

from service.comparisons.queries import Comparison, Standing
from service.searches.schemas import sampler_body
from service.states import SearchState


class StepBody(BaseModel):
    """What a search had found after so many trials of its sampler, and so many seconds of evaluators."""

    trials: int
    evaluator_s: float
    share: float


class StandingBody(BaseModel):
    """One search among others. Shares are of the hypervolume that all have found together.

    `share_at_common` is that after `common_trials`; `inherited` counts trials that it began with, which its sampler has
    not proposed; `on_joint_front` its designs that no other search's dominates.
    """

    search: str
    name: str
    state: SearchState
    sampler: str
    seed: int | None
    trials: int
    inherited: int
    evaluator_s: float
    share: float
    share_at_common: float
    on_joint_front: int
    curve: list[StepBody]


class ComparisonBody(BaseModel):
    """Searches that ask the same question: those that have found most after `common_trials` first."""

    items: list[StandingBody]
    common_trials: int
    reference_point: dict[str, float]


def comparison_body(comparison: Comparison) -> ComparisonBody:
    reference: Mapping[str, float] = comparison.reference_point
    return ComparisonBody(
        items=[standing_body(one) for one in comparison.standings],
        common_trials=comparison.common_trials,
        reference_point=dict(reference),
    )


def standing_body(standing: Standing) -> StandingBody:
    search = standing.search
    return StandingBody(
        search=search.id,
        name=search.name,
        state=SearchState(search.state),
        sampler=sampler_body(search, None).name,
        seed=search.spec["sampler"].get("seed"),
        trials=standing.trials,
        inherited=standing.inherited,
        evaluator_s=standing.evaluator_s,
        share=standing.share,
        share_at_common=standing.share_at_common,
        on_joint_front=standing.on_joint_front,
        curve=[StepBody(trials=one.trials, evaluator_s=one.evaluator_s, share=one.share) for one in standing.curve],
    )
