"""What workers have installed beside Espalier, as they announce it; see `docs/extending.md`. The caller commits."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.db import insert_if_new
from service.models import Offer, utc_now


class OfferKind(StrEnum):
    SCORE = "score"
    SAMPLER = "sampler"
    IMPORTANCE = "importance"
    DATASET = "dataset"


def offer(session: Session, kind: OfferKind, name: str, details: dict[str, Any]) -> None:
    """Write down that a worker has something by that name, or that it is still there."""
    now = utc_now()
    if insert_if_new(session, Offer, {"kind": str(kind), "name": name, "details": details, "seen_at": now}):
        return
    row = session.get_one(Offer, (str(kind), name), populate_existing=True, with_for_update=True)
    row.seen_at = now
    if row.details != details:
        row.details = details


def list_offers(session: Session, kind: OfferKind | None = None) -> list[Offer]:
    """Of one kind, or all; by kind and name."""
    query = select(Offer).order_by(Offer.kind, Offer.name)
    return list(session.scalars(query if kind is None else query.where(Offer.kind == str(kind))))
