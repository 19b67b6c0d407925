"""A search's history over HTTP: as pages of JSON, or as a stream."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from service.db import reading
from service.edge import EngineDep, PageSize, PageToken, SearchId, StoppingDep, Whole
from service.errors import InvalidPageTokenError
from service.events.queries import events_after
from service.events.schemas import EventPage, event_body
from service.events.stream import stream_events
from service.paging import clamp_page_size, decode_token, encode_token
from service.searches.queries import get_search

router = APIRouter(prefix="/searches/{search_id}", tags=["events"])
STREAM = "text/event-stream"
_TEXT = {"type": "string"}
_STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            STREAM: {
                # As OpenAPI 3.2 has it: the schema of each event, not of the stream.
                "itemSchema": {
                    "type": "object",
                    "properties": {"id": _TEXT, "event": _TEXT, "data": _TEXT, "retry": {"type": "integer"}},
                }
            }
        }
    }
}
LastEventId = Annotated[str | None, Header(description="of the stream: go on after this event")]


@router.get("/events", response_model=EventPage, responses=_STREAMED)
async def read_events(
    request: Request,
    engine: EngineDep,
    stopping: StoppingDep,
    search_id: SearchId,
    after: Whole = 0,
    page_size: PageSize = None,
    page_token: PageToken = None,
    last_event_id: LastEventId = None,
) -> Any:
    """List what happened after an event; with `Accept: text/event-stream`, go on telling until the search is final."""
    if STREAM in request.headers.get("accept", ""):
        return await _stream(engine, stopping, search_id, after, last_event_id)
    filters = {"search": search_id}
    if page_token is not None:
        after = _seq(decode_token(page_token, filters))
    return await run_in_threadpool(_page, search_id, after, clamp_page_size(page_size), filters, engine)


@router.get("/events/stream", response_class=StreamingResponse, responses=_STREAMED)
async def follow_events(
    engine: EngineDep,
    stopping: StoppingDep,
    search_id: SearchId,
    after: Whole = 0,
    last_event_id: LastEventId = None,
) -> Response:
    """Tell what happens until the search is final, as server-sent events."""
    return await _stream(engine, stopping, search_id, after, last_event_id)


async def _stream(engine: Any, stopping: Any, search_id: str, after: int, last_event_id: str | None) -> Response:
    await run_in_threadpool(_require_search, engine, search_id)
    if last_event_id is not None and last_event_id.isdecimal() and len(last_event_id) < 10:
        after = int(last_event_id)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    events = stream_events(engine, search_id, after, stopping)
    return StreamingResponse(events, headers=headers, media_type=STREAM)


def _require_search(engine: Any, search_id: str) -> None:
    with reading(engine) as session:
        get_search(session, search_id)


def _page(search_id: str, after: int, limit: int, filters: dict[str, Any], engine: Any) -> EventPage:
    with reading(engine) as session:
        get_search(session, search_id)
        events = events_after(session, search_id, after, limit + 1)
    items = [event_body(event) for event in events[:limit]]
    token = encode_token({"seq": items[-1].id}, filters) if len(events) > limit else None
    return EventPage(items=items, next_page_token=token)


def _seq(position: dict[str, Any]) -> int:
    seq = position.get("seq")
    if not isinstance(seq, int) or not 0 <= seq < 2**31:
        raise InvalidPageTokenError("pass page_token exactly as next_page_token gave it")
    return seq
