"""Reads refinements, each with its trial's number."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Select, select
from sqlalchemy.orm import Session, defer

from service.errors import NotFoundError
from service.models import Refinement, Trial
from service.states import JobState


@dataclass(frozen=True, slots=True)
class RefinementRow:
    """A refinement, its trial's number, and what was found of the trial in the search."""

    refinement: Refinement
    trial: Trial


def get_refinement(session: Session, refinement_id: str) -> RefinementRow:
    """Raises `NotFoundError` when there is no such refinement."""
    found = session.execute(_query().where(Refinement.id == refinement_id)).one_or_none()
    if found is None:
        raise NotFoundError(f"there is no refinement {refinement_id}")
    return RefinementRow(*found)


def list_refinements(session: Session, search_id: str, limit: int | None = None) -> list[RefinementRow]:
    """A search's refinements, the newest first."""
    query = _query().where(Refinement.search_id == search_id)
    ordered = query.order_by(Refinement.created_at.desc(), Refinement.id).limit(limit)
    return [RefinementRow(*row) for row in session.execute(ordered)]


def latest_refinement(session: Session, trial_id: int) -> Refinement | None:
    """The newest one of a trial that has succeeded."""
    succeeded = (Refinement.trial_id == trial_id, Refinement.state == JobState.SUCCEEDED)
    return session.scalar(select(Refinement).where(*succeeded).order_by(Refinement.finished_at.desc()).limit(1))


def _query() -> Select[Refinement, Trial]:
    joined = select(Refinement, Trial).join(Trial, Trial.id == Refinement.trial_id)
    return joined.options(defer(Trial.details))
