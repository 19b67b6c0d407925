"""Artifacts over HTTP: whole files or ranges of them. A digest always names the same bytes."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request, Response
from fastapi import Path as PathParameter
from starlette.responses import FileResponse

from service.artifacts.store import SAME_HOME, open_path
from service.db import reading
from service.edge import EngineDep, SettingsDep, is_known, not_modified
from service.errors import NotFoundError
from service.models import Artifact

router = APIRouter(prefix="/artifacts", tags=["artifacts"])
Digest = Annotated[str, PathParameter(pattern=r"^[0-9a-f]{64}$")]
_HARMLESS = "sandbox; default-src 'none'; style-src 'unsafe-inline'"
"""A report is looked at in the browser, where it may do nothing: no scripts, no requests, no place of ours."""

_BINARY = {"schema": {"type": "string", "format": "binary"}}


@router.get(
    "/{digest}",
    response_class=FileResponse,
    responses={status: {"description": "its bytes", "content": {"*/*": _BINARY}} for status in (200, 206)},
)
def download_artifact(request: Request, engine: EngineDep, settings: SettingsDep, digest: Digest) -> Response:
    """Download a file."""
    with reading(engine) as session:
        artifact = session.get(Artifact, digest)
        if artifact is None:
            raise NotFoundError(f"there is no artifact {digest}")
        filename, media_type = artifact.filename, artifact.media_type
    try:
        path = open_path(settings.artifacts_folder, digest)
    except FileNotFoundError:
        raise NotFoundError(f"the bytes of artifact {digest} are not on this machine; {SAME_HOME}") from None
    etag = f'"{digest}"'
    headers = {
        "ETag": etag,
        "Cache-Control": "public, max-age=31536000, immutable",
        "X-Content-Type-Options": "nosniff",
    }
    is_page = media_type.startswith("text/html")
    if is_page:
        headers["Content-Security-Policy"] = _HARMLESS
    if is_known(request, etag):
        return not_modified(headers)
    shown = "inline" if is_page else "attachment"
    return FileResponse(path, headers=headers, media_type=media_type, filename=filename, content_disposition_type=shown)
