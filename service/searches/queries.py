"""Reads searches."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.errors import NotFoundError
from service.models import Search
from service.states import SearchState


def get_search(session: Session, search_id: str) -> Search:
    """Raises `NotFoundError` when there is no such search."""
    search = session.get(Search, search_id)
    if search is None:
        raise NotFoundError(f"there is no search {search_id}")
    return search


def lock_search(session: Session, search_id: str) -> Search:
    """Read a search afresh and keep others from changing it, and what belongs to it, until the transaction ends.

    Raises:
        NotFoundError: there is no such search.
    """
    query = select(Search).where(Search.id == search_id).with_for_update(key_share=True)
    search = session.scalars(query.execution_options(populate_existing=True)).one_or_none()
    if search is None:
        raise NotFoundError(f"there is no search {search_id}")
    return search


def list_searches(
    session: Session, *, limit: int, before: tuple[datetime, str] | None = None, state: SearchState | None = None
) -> list[Search]:
    """Newest first; `before` is the (created_at, id) of the last one already seen."""
    query = select(Search).order_by(Search.created_at.desc(), Search.id.desc()).limit(limit)
    if state is not None:
        query = query.where(Search.state == state)
    if before is not None:
        created_at, search_id = before
        # Rows are compared column by column: SQLite gives a literal row no column's type.
        query = query.where(
            (Search.created_at < created_at) | ((Search.created_at == created_at) & (Search.id < search_id))
        )
    return list(session.scalars(query))


def searches_in(session: Session, *states: SearchState) -> list[str]:
    """Ids of the searches in these states, oldest first."""
    return list(session.scalars(select(Search.id).where(Search.state.in_(states)).order_by(Search.created_at)))


def version_of(session: Session, search_id: str) -> tuple[int, SearchState]:
    """What to look at to see whether anything changed. Raises `NotFoundError` when there is no such search."""
    found = session.execute(select(Search.version, Search.state).where(Search.id == search_id)).one_or_none()
    if found is None:
        raise NotFoundError(f"there is no search {search_id}")
    return found.version, found.state
