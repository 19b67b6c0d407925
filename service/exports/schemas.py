"""Exports as the API shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from service.models import Artifact, Export
from service.states import JobState


class ExportRequest(BaseModel):
    """Which trial; without one, the knee of the front."""

    model_config = ConfigDict(extra="forbid")

    trial: int | None = Field(default=None, ge=0, le=2**31 - 1)


class ArtifactBody(BaseModel):
    digest: str
    filename: str
    media_type: str
    size_bytes: int
    url: str


class ExportBody(BaseModel):
    """A request for a file. `report` has reported against re-measured figures once it has succeeded."""

    id: str
    search: str
    trial: int
    state: JobState
    reason: str
    artifact: ArtifactBody | None
    report: dict[str, Any]
    created_at: datetime
    finished_at: datetime | None


class ExportPage(BaseModel):
    items: list[ExportBody]


def export_body(export: Export, number: int, artifact: Artifact | None) -> ExportBody:
    return ExportBody(
        id=export.id,
        search=export.search_id,
        trial=number,
        state=JobState(export.state),
        reason=export.reason,
        artifact=artifact and artifact_body(artifact),
        report=export.report,
        created_at=export.created_at,
        finished_at=export.finished_at,
    )


def artifact_body(artifact: Artifact) -> ArtifactBody:
    return ArtifactBody(
        digest=artifact.digest,
        filename=artifact.filename,
        media_type=artifact.media_type,
        size_bytes=artifact.size_bytes,
        url=f"/v1/artifacts/{artifact.digest}",
    )
