"""What the pages read beyond `service.searches.queries`: light rows of all trials, full rows of the shown ones."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.models import Artifact, Export, Finalist, Trial
from service.web.views import Confirmed, ExportRow, TrialFacts, export_row

EXPORTS_SHOWN = 20


def all_trials(session: Session, search_id: str) -> list[TrialFacts]:
    """In order of their numbers, without designs and evidence: there can be many thousands."""
    columns = select(Trial.id, Trial.number, Trial.baseline, Trial.state, Trial.values)
    rows = session.execute(columns.where(Trial.search_id == search_id).order_by(Trial.number))
    return [TrialFacts(*row) for row in rows]


def trials_by_id(session: Session, ids: Iterable[int]) -> dict[int, Trial]:
    return {trial.id: trial for trial in session.scalars(select(Trial).where(Trial.id.in_(list(ids))))}


def confirmed_trials(session: Session, search_id: str, everyone: Iterable[TrialFacts]) -> list[Confirmed]:
    """The finalists: first those found, then the uniform ones."""
    by_id = {trial.id: trial for trial in everyone}
    finalists = session.scalars(select(Finalist).where(Finalist.search_id == search_id).order_by(Finalist.id))
    known = [Confirmed(by_id[one.trial_id], one.state, one.values) for one in finalists if one.trial_id in by_id]
    return sorted(known, key=lambda one: (one.trial.baseline, one.trial.number))


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
