"""Exports as the API shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from service.exports.queries import ExportRow
from service.models import Artifact
from service.states import JobState
from service.wording import describe_file


class ExportRequest(BaseModel):
    """Which trial; without one, the knee of the front."""

    model_config = ConfigDict(extra="forbid")

    trial: int | None = Field(default=None, ge=0, le=2**31 - 1)


class ArtifactBody(BaseModel):
    """A file to download; `description` says for people what it is."""

    digest: str
    filename: str
    media_type: str
    size_bytes: int
    url: str
    description: str


class ExportBody(BaseModel):
    """A request for a file.

    Once it has succeeded, `report` has reported against re-measured figures and what was checked, and `files` are a
    report for people, the weights as safetensors, and programs that run the artifact with the right preprocessing.
    """

    id: str
    search: str
    trial: int
    state: JobState
    reason: str
    artifact: ArtifactBody | None
    files: list[ArtifactBody]
    report: dict[str, Any]
    created_at: datetime
    finished_at: datetime | None


class ExportPage(BaseModel):
    items: list[ExportBody]


def export_body(row: ExportRow) -> ExportBody:
    export = row.export
    return ExportBody(
        id=export.id,
        search=export.search_id,
        trial=row.number,
        state=JobState(export.state),
        reason=export.reason,
        artifact=row.artifact and artifact_body(row.artifact),
        files=[artifact_body(file) for file in row.files],
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
        description=describe_file(artifact.filename),
    )
