"""Trials as the API shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel

from search_spaces.objectives import Provenance
from service.models import Finalist, Trial
from service.states import JobState, Obtained, TrialState


class ConfirmedBody(BaseModel):
    """What a finalist scored on the split `confirm`, after its fine-tuning. `sources` as of a trial."""

    state: JobState
    values: dict[str, float]
    sources: dict[str, Provenance]
    reason: str


class OriginBody(BaseModel):
    """The trial that found an outcome: the id of its search, its number there, and that search's name."""

    search: str
    trial: int
    name: str


class TrialBody(BaseModel):
    """A trial. `confirmed` is there once it has been chosen as a finalist.

    `sources` says of each value that a device tells whether it was measured, simulated or predicted; `origin` whose
    trial found them, where this one was not evaluated itself. A stopped trial has the values of the step that it has
    reached, `rung`, and says what it was `expected` to come to. `evaluator_s` is how long evaluators have worked on it.
    """

    number: int
    state: TrialState
    rung: int | None
    expected: dict[str, float] | None
    design: dict[str, int | str]
    values: dict[str, float]
    sources: dict[str, Provenance]
    reason: str
    attempt: int
    evaluator_s: float
    baseline: bool
    obtained: Obtained
    origin: OriginBody | None
    confirmed: ConfirmedBody | None
    started_at: datetime | None
    finished_at: datetime | None


class CertificateBody(BaseModel):
    """What the design takes of one limit, recomputed from the network that it leads to, before any work is done.

    `share` is of what a budget is relative to; null for a limit that is no share.
    """

    metric: str
    value: float
    at_most: float
    share: float | None
    kept: bool


class TrialWithDetails(TrialBody):
    """A trial with its evidence: certificates, the time of each stage, the measurement, executed precisions."""

    certificate: list[CertificateBody]
    details: dict[str, Any]
    confirmed_details: dict[str, Any]


class TrialPage(BaseModel):
    items: list[TrialBody]
    next_page_token: str | None


class BaselineBody(BaseModel):
    """The front of the uniform designs alone."""

    items: list[TrialBody]
    hypervolume: float


class ConfirmedFronts(BaseModel):
    """Hypervolumes by confirmed values, on one reference point: of the sampler's finalists, of the uniform ones."""

    hypervolume: float
    baseline_hypervolume: float


class FrontBody(BaseModel):
    """The Pareto front by the search's own values; `knee` is the number of its best compromise."""

    items: list[TrialBody]
    hypervolume: float
    reference_point: dict[str, float]
    knee: int | None
    baseline: BaselineBody
    finalists: list[TrialBody]
    confirmed: ConfirmedFronts | None


def trial_body(trial: Trial, finalist: Finalist | None) -> TrialBody:
    return TrialBody(**_fields(trial, finalist))


def trial_with_details(trial: Trial, finalist: Finalist | None) -> TrialWithDetails:
    confirmed_details = {} if finalist is None else finalist.details
    certificate = [CertificateBody.model_validate(one) for one in trial.certificate]
    return TrialWithDetails(
        **_fields(trial, finalist), certificate=certificate, details=trial.details, confirmed_details=confirmed_details
    )


def _fields(trial: Trial, finalist: Finalist | None) -> dict[str, Any]:
    confirmed = None
    if finalist is not None:
        confirmed = ConfirmedBody(
            state=JobState(finalist.state), values=finalist.values, sources=finalist.sources, reason=finalist.reason
        )
    return {
        "number": trial.number,
        "state": TrialState(trial.state),
        "rung": trial.rung,
        "expected": trial.expected,
        "design": trial.design,
        "values": trial.values,
        "sources": trial.sources,
        "reason": trial.reason,
        "attempt": trial.attempt,
        "evaluator_s": trial.evaluator_s,
        "baseline": trial.baseline,
        "obtained": Obtained(trial.obtained),
        "origin": trial.origin and OriginBody.model_validate(trial.origin),
        "confirmed": confirmed,
        "started_at": trial.started_at,
        "finished_at": trial.finished_at,
    }
