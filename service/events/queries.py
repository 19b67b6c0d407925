"""Reads a search's history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.errors import NotFoundError
from service.models import Event, Search
from service.states import SearchState


@dataclass(frozen=True)
class Tail:
    """Events after a point. `is_complete`: the search is final, and these are the last it will have."""

    events: Sequence[Event]
    is_complete: bool


def events_after(session: Session, search_id: str, after: int, limit: int) -> list[Event]:
    query = select(Event).where(Event.search_id == search_id, Event.seq > after).order_by(Event.seq).limit(limit)
    return list(session.scalars(query))


def tail(session: Session, search_id: str, after: int, limit: int) -> Tail:
    """Read on from `after`.

    Raises:
        NotFoundError: there is no such search.
    """
    # The state first: what is final stays so, and then no event can slip in between the two queries.
    found = session.execute(select(Search.state, Search.event_count).where(Search.id == search_id)).one_or_none()
    if found is None:
        raise NotFoundError(f"there is no search {search_id}")
    state: SearchState = found.state
    if found.event_count <= after:
        return Tail((), state.is_final)
    events = events_after(session, search_id, after, limit)
    return Tail(events, state.is_final and len(events) < limit)
