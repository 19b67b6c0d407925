"""Appends to a search's history."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from service.models import Event, utc_now
from service.searches.queries import lock_search
from service.states import EventKind


def append_event(session: Session, search_id: str, kind: EventKind, data: dict[str, Any]) -> Event:
    """Append an event, and count the search's version up: what is told has changed what is shown.

    Raises:
        NotFoundError: there is no such search.
    """
    search = lock_search(session, search_id)
    search.event_count += 1
    search.version += 1
    search.updated_at = utc_now()
    event = Event(search_id=search_id, seq=search.event_count, kind=str(kind), data=data)
    session.add(event)
    session.flush()
    return event
