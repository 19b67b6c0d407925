"""Files come to be handed out. The caller commits; the bytes are stored before, see `service.artifacts.store`."""

from __future__ import annotations

from sqlalchemy.orm import Session

from service.db import insert_if_new
from service.models import Artifact, utc_now


def add_artifact(session: Session, digest: str, filename: str, media_type: str, size_bytes: int) -> None:
    """Let a stored file be downloaded. One with the same bytes keeps the name that it has."""
    row = {
        "digest": digest,
        "filename": filename,
        "media_type": media_type,
        "size_bytes": size_bytes,
        "created_at": utc_now(),
    }
    insert_if_new(session, Artifact, row)
