"""Reads exports, each with its trial's number and its files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from service.errors import NotFoundError
from service.models import Artifact, Export, Finalist, Refinement, Trial
from service.refinements.queries import latest_refinement
from service.states import JobState
from service.wording import WeightsOrigin


@dataclass(frozen=True, slots=True)
class ExportRow:
    """An export.

    Attributes:
        number: of its trial.
        artifact: the exported file; None until there is one.
        files: those that come with it.
    """

    export: Export
    number: int
    artifact: Artifact | None
    files: tuple[Artifact, ...]


def get_export(session: Session, export_id: str) -> ExportRow:
    """Raises `NotFoundError` when there is no such export."""
    rows = _read(session, _query().where(Export.id == export_id))
    if not rows:
        raise NotFoundError(f"there is no export {export_id}")
    return rows[0]


def list_exports(session: Session, search_id: str, limit: int | None = None) -> list[ExportRow]:
    """A search's exports, the newest first. At most one of each trial is useful, so there are few."""
    query = _query().where(Export.search_id == search_id).order_by(Export.created_at.desc(), Export.id)
    return _read(session, query.limit(limit))


def final_weights(session: Session, trial_id: int) -> Refinement | Finalist | None:
    """What has left the weights that an export of the trial takes, as things are now.

    The newest refinement that helped, else the finalist as it was confirmed; None where the trial's own are made again.
    """
    confirmed = select(Finalist).where(Finalist.trial_id == trial_id, Finalist.state == JobState.SUCCEEDED)
    return latest_refinement(session, trial_id) or session.scalars(confirmed).one_or_none()


def weights_of(final: Refinement | Finalist | None) -> dict[str, Any]:
    """The same as an export's report tells it: `origin`, and the settings of a refinement."""
    if isinstance(final, Refinement):
        return {"origin": str(WeightsOrigin.REFINED), **final.settings}
    return {"origin": str(WeightsOrigin.SEARCHED if final is None else WeightsOrigin.CONFIRMED)}


def _query() -> Select[Export, int]:
    return select(Export, Trial.number).join(Trial, Trial.id == Export.trial_id)


def _read(session: Session, query: Select[Export, int]) -> list[ExportRow]:
    found = [(export, number) for export, number in session.execute(query)]
    wanted = {digest for export, _ in found for digest in (export.artifact_digest, *export.files) if digest}
    artifacts = {one.digest: one for one in session.scalars(select(Artifact).where(Artifact.digest.in_(wanted)))}
    return [
        ExportRow(
            export,
            number,
            artifacts.get(export.artifact_digest or ""),
            tuple(artifacts[digest] for digest in export.files),
        )
        for export, number in found
    ]
