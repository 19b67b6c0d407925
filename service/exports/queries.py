"""Reads exports, each with its trial's number and its artifact."""

from __future__ import annotations

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from service.errors import NotFoundError
from service.models import Artifact, Export, Trial

Row = tuple[Export, int, Artifact | None]


def get_export(session: Session, export_id: str) -> Row:
    """Raises `NotFoundError` when there is no such export."""
    row = session.execute(_query().where(Export.id == export_id)).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no export {export_id}")
    return row[0], row[1], row[2]


def list_exports(session: Session, search_id: str) -> list[Row]:
    """A search's exports, the newest first. At most one of each trial is useful, so there are few."""
    query = _query().where(Export.search_id == search_id).order_by(Export.created_at.desc(), Export.id)
    return [(export, number, artifact) for export, number, artifact in session.execute(query)]


def _query() -> Select[Export, int, Artifact]:
    query = select(Export, Trial.number, Artifact).join(Trial, Trial.id == Export.trial_id)
    return query.outerjoin(Artifact, Artifact.digest == Export.artifact_digest)
