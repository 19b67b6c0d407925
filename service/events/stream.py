"""A search's history as server-sent events: what has happened, then what happens, until the search is final.

No database session is held while nothing happens.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from sqlalchemy import Engine
from starlette.concurrency import run_in_threadpool

from service.db import reading
from service.events.queries import Tail, tail
from service.events.schemas import event_body
from service.models import Event

LOOK_EVERY_S = 0.3
HEARTBEAT_EVERY_S = 15.0
RETRY_MS = 2000
_BATCH = 500


async def stream_events(engine: Engine, search_id: str, after: int, stopping: threading.Event) -> AsyncIterator[bytes]:
    """Yield the bytes of the stream. The client comes back with the id of the last event it got."""
    yield format_sse_event(retry=RETRY_MS)
    said_something = time.monotonic()
    while not stopping.is_set():
        news = await run_in_threadpool(_look, engine, search_id, after)
        for event in news.events:
            after, said_something = event.seq, time.monotonic()
            yield _encode(event)
        if news.is_complete:
            return
        if time.monotonic() - said_something >= HEARTBEAT_EVERY_S:
            said_something = time.monotonic()
            yield KEEPALIVE_COMMENT
        if len(news.events) < _BATCH:
            await asyncio.sleep(LOOK_EVERY_S)


def _look(engine: Engine, search_id: str, after: int) -> Tail:
    with reading(engine) as session:
        return tail(session, search_id, after, _BATCH)


def _encode(event: Event) -> bytes:
    body = event_body(event)
    return format_sse_event(data_str=json.dumps(body.data), event=str(body.kind), id=str(body.id))
