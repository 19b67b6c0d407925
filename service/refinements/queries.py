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
    """The newest one of a trial that has succeeded and has helped."""
    succeeded = (Refinement.trial_id == trial_id, Refinement.state == JobState.SUCCEEDED)
    newest_first = session.scalars(select(Refinement).where(*succeeded).order_by(Refinement.finished_at.desc()))
    return next((row for row in newest_first if is_kept(row) is not False), None)


def is_kept(row: Refinement) -> bool | None:
    """Whether its values are of the trained weights, or of what it began with; None until that is known."""
    kept: bool | None = row.details.get("fine_tuning", {}).get("kept")
    return kept


def _query() -> Select[Refinement, Trial]:
    joined = select(Refinement, Trial).join(Trial, Trial.id == Refinement.trial_id)
    return joined.options(defer(Trial.details))
