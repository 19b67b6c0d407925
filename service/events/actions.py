"""Appends to a search's history."""

from __future__ import annotations

from collections.abc import Sequence
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
    return append_events(session, search_id, kind, [data])[0]


def append_events(session: Session, search_id: str, kind: EventKind, data: Sequence[dict[str, Any]]) -> list[Event]:
    """As `append_event`, for many of one kind at once, in their order."""
    search = lock_search(session, search_id)
    first = search.event_count + 1
    events = [Event(search_id=search_id, seq=seq, kind=str(kind), data=one) for seq, one in enumerate(data, first)]
    search.event_count += len(events)
    search.version += 1
    search.updated_at = utc_now()
    session.add_all(events)
    session.flush()
    return events
