"""What the pages read beyond the queries of the API: light rows of all trials, and exports with their files."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.models import Artifact, Export, Trial
from service.web.views import ExportRow, TrialFacts, export_row

EXPORTS_SHOWN = 20


def all_trials(session: Session, search_id: str) -> list[TrialFacts]:
    """In order of their numbers, without designs and evidence: there can be many thousands."""
    columns = select(Trial.number, Trial.baseline, Trial.state, Trial.values)
    rows = session.execute(columns.where(Trial.search_id == search_id).order_by(Trial.number))
    return [TrialFacts(*row) for row in rows]


def recent_exports(session: Session, search_id: str) -> list[ExportRow]:
    """Newest first."""
    query = (
        select(Export, Trial.number, Artifact)
        .join(Trial, Trial.id == Export.trial_id)
        .outerjoin(Artifact, Artifact.digest == Export.artifact_digest)
        .where(Export.search_id == search_id)
        .order_by(Export.created_at.desc())
        .limit(EXPORTS_SHOWN)
    )
    return [export_row(export, number, artifact) for export, number, artifact in session.execute(query)]
