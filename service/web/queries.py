"""What the pages read beyond the queries of the API: light rows of all trials."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.models import Trial
from service.web.views import TrialFacts


def all_trials(session: Session, search_id: str) -> list[TrialFacts]:
    """In order of their numbers, without designs and evidence: there can be many thousands."""
    columns = select(Trial.number, Trial.baseline, Trial.state, Trial.values)
    rows = session.execute(columns.where(Trial.search_id == search_id).order_by(Trial.number))
    return [TrialFacts(*row) for row in rows]
