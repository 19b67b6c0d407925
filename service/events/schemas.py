"""Events as the API shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel

from service.models import Event
from service.states import EventKind


class EventBody(BaseModel):
    """What happened. `id` counts within the search and is what `after` and `Last-Event-ID` mean."""

    id: int
    kind: EventKind
    data: dict[str, Any]
    created_at: datetime


class EventPage(BaseModel):
    items: list[EventBody]
    next_page_token: str | None


def event_body(event: Event) -> EventBody:
    return EventBody(id=event.seq, kind=EventKind(event.kind), data=event.data, created_at=event.created_at)
