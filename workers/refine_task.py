"""Refining a trial's design: it is trained on for long, from the weights that its search has left."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.db import transaction
from service.leases import claim as claim_row
from service.models import Finalist, Refinement, Search, Trial
from service.queue import TaskName
from service.refinements.actions import finish_refinement
from service.states import JobState
from workers.evaluator import JobName
from workers.workplace import LEASE_S, Claim, Workplace, arguments_of, work

DEADLINE_S = 7 * 24 * 3600.0


def refine_trial(workplace: Workplace, refinement_id: str) -> None:
    with transaction(workplace.engine) as session:
        attempt = claim_row(session, Refinement, refinement_id, workplace.owner, LEASE_S)
        if attempt is None:
            return
        arguments = _arguments(session, session.get_one(Refinement, refinement_id))
    claim = Claim(TaskName.REFINE, refinement_id, attempt)  # a refinement outlives its search
    ending = work(workplace, claim, JobName.REFINE, arguments, DEADLINE_S)
    if ending is None:
        return
    with transaction(workplace.engine) as session:
        finish_refinement(session, refinement_id, attempt, ending.state, ending.reason, result=ending.result)


def _arguments(session: Session, refinement: Refinement) -> dict[str, Any]:
    """A finalist goes on from its fine-tuned weights, any other trial from what it was searched with."""
    trial, search = session.get_one(Trial, refinement.trial_id), session.get_one(Search, refinement.search_id)
    confirmed = select(Finalist).where(Finalist.trial_id == trial.id, Finalist.state == JobState.SUCCEEDED)
    finalist = session.scalars(confirmed).one_or_none()
    return {
        **arguments_of(search),
        "design": trial.design,
        "weights_digest": None if finalist is None else finalist.weights_digest,
        "settings": refinement.settings,
    }
