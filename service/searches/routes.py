"""Searches over HTTP. Each request is one transaction, committed here, before the response is made."""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from search_spaces.check import Checked, check_spec
from search_spaces.faults import Fault
from search_spaces.parse import parse_spec
from service.db import reading, transaction
from service.edge import (
    BodyDep,
    EngineDep,
    PageSize,
    PageToken,
    SearchId,
    StoppingDep,
    body_of,
    etag_of,
    is_known,
    not_modified,
    preferred_wait_s,
    read_document,
    read_model,
)
from service.errors import InvalidPageTokenError, InvalidRequestError, ProblemError
from service.known import known_for
from service.models import Search
from service.paging import clamp_page_size, decode_token, encode_token
from service.searches import actions
from service.searches.extensions import Extension, extend
from service.searches.forks import fork_spec
from service.searches.predictions import rank_correlation
from service.searches.queries import get_search, list_searches, lock_search, version_of
from service.searches.schemas import (
    CheckBody,
    ExtensionRequest,
    SearchBody,
    SearchPage,
    check_body,
    search_body,
)
from service.states import SearchState
from service.trials.queries import progress_of

router = APIRouter(prefix="/searches", tags=["searches"])

LOOK_EVERY_S = 0.25
RETRY_AFTER_S = {
    SearchState.QUEUED: 5,
    SearchState.PREPARING: 3,
    SearchState.RUNNING: 2,
    SearchState.PAUSED: 30,
    SearchState.CONFIRMING: 3,
    SearchState.CANCELLING: 1,
}
_SPEC_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            media_type: {"schema": {"$ref": "#/components/schemas/SearchSpec"}}
            for media_type in ("application/json", "application/yaml")
        },
    }
}
_CHANGES_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            media_type: {"schema": {"type": "object", "additionalProperties": True}}
            for media_type in ("application/json", "application/yaml")
        },
    }
}
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
IdempotencyKey = Annotated[str | None, Header(description="the same key and body: the same search, made once")]
Prefer = Annotated[str | None, Header(description="`wait=N`: answer when something changed, after N seconds at most")]
IfNoneMatch = Annotated[str | None, Header(description="the ETag that is known: 304 while nothing changed")]


@router.post("", status_code=202, response_model=SearchBody, openapi_extra=_SPEC_BODY)
async def create_search(
    request: Request,
    response: Response,
    engine: EngineDep,
    stopping: StoppingDep,
    body: BodyDep,
    idempotency_key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Any:
    """Submit a spec, in JSON or YAML. Everything that can be wrong with it is found now, and nothing is stored then."""
    digest = hashlib.sha256(body).hexdigest()
    shown = await run_in_threadpool(_create, engine, idempotency_key, digest, lambda: _check(request, engine, body))
    wait_s = preferred_wait_s(request)
    if wait_s is not None:
        await _wait(engine, stopping, shown.id, wait_s, lambda _version, state: state.is_final)
        shown, _ = await run_in_threadpool(_show, engine, shown.id)
        response.headers["Preference-Applied"] = f"wait={wait_s:.0f}"
    response.headers["Location"] = f"/v1/searches/{shown.id}"
    response.headers.update(_retry_after(shown.state))
    return shown


@router.post("/check", openapi_extra=_SPEC_BODY)
def check_search(request: Request, engine: EngineDep, body: BodyDep) -> CheckBody:
    """Say what a spec would search, or what is wrong with it. Stores nothing."""
    return check_body(_check(request, engine, body))


@router.get("")
def read_searches(
    engine: EngineDep, state: SearchState | None = None, page_size: PageSize = None, page_token: PageToken = None
) -> SearchPage:
    """List searches, the newest first."""
    filters = {"state": state}
    before = None if page_token is None else _position(decode_token(page_token, filters))
    limit = clamp_page_size(page_size)
    with reading(engine) as session:
        searches = list_searches(session, limit=limit + 1, before=before, state=state)
        items = _bodies(session, searches[:limit])
    token = None
    if len(searches) > limit:
        last = searches[limit - 1]
        token = encode_token({"created_at": last.created_at.isoformat(), "id": last.id}, filters)
    return SearchPage(items=items, next_page_token=token)


@router.get("/{search_id}", response_model=SearchBody)
async def read_search(
    request: Request,
    response: Response,
    engine: EngineDep,
    stopping: StoppingDep,
    search_id: SearchId,
    if_none_match: IfNoneMatch = None,
    prefer: Prefer = None,
) -> Any:
    """Read a search. With `Prefer: wait=N` the answer comes once it differs from what `If-None-Match` says is known."""
    headers = {}
    wait_s = preferred_wait_s(request)
    if wait_s is not None:
        await _wait(engine, stopping, search_id, wait_s, lambda version, _: not is_known(request, etag_of(version)))
        headers["Preference-Applied"] = f"wait={wait_s:.0f}"
    shown, version = await run_in_threadpool(_show, engine, search_id)
    headers |= {"ETag": etag_of(version), "Cache-Control": "no-cache"} | _retry_after(shown.state)
    if is_known(request, etag_of(version)):
        return not_modified(headers)
    response.headers.update(headers)
    return shown


@router.post("/{search_id}/cancel")
def cancel_search(response: Response, engine: EngineDep, search_id: SearchId) -> SearchBody:
    """Stop a search. It is `cancelling` until nothing runs for it any more. Asking again changes nothing."""
    return _change(response, engine, search_id, actions.cancel)


@router.post("/{search_id}/pause")
def pause_search(response: Response, engine: EngineDep, search_id: SearchId) -> SearchBody:
    """Add no more trials; those that run end in peace. Asking again changes nothing."""
    return _change(response, engine, search_id, actions.pause)


@router.post("/{search_id}/resume")
def resume_search(response: Response, engine: EngineDep, search_id: SearchId) -> SearchBody:
    """Go on with a paused search. Asking again changes nothing."""
    return _change(response, engine, search_id, actions.resume)


@router.post("/{search_id}/extend", status_code=202, openapi_extra=body_of(ExtensionRequest))
def extend_search(
    request: Request,
    response: Response,
    engine: EngineDep,
    search_id: SearchId,
    body: BodyDep,
    idempotency_key: IdempotencyKey = None,
) -> SearchBody:
    """Go on with a search that is over: more trials, and once more those that failed or were dropped.

    Everything it has found stays, confirmed finalists too. With the same `Idempotency-Key`, once.
    """
    wanted = read_model(request, body, ExtensionRequest).extension()
    shown = _extend(engine, search_id, wanted, idempotency_key, hashlib.sha256(body).hexdigest())
    response.headers.update(_retry_after(shown.state))
    return shown


@router.post("/{search_id}/fork", status_code=202, openapi_extra=_CHANGES_BODY)
def fork_search(
    request: Request,
    response: Response,
    engine: EngineDep,
    search_id: SearchId,
    body: BodyDep,
    idempotency_key: IdempotencyKey = None,
) -> SearchBody:
    """Submit the spec of a search with some parts replaced; the new search begins with what this one has found.

    The body is a merge patch (RFC 7396) of the spec. Network, data set, space and recipe have to stay as they are.
    """
    digest = hashlib.sha256(f"fork {search_id} ".encode() + body).hexdigest()
    shown = _create(engine, idempotency_key, digest, lambda: _check_fork(request, engine, search_id, body))
    response.headers["Location"] = f"/v1/searches/{shown.id}"
    response.headers.update(_retry_after(shown.state))
    return shown


def _extend(engine: Engine, search_id: str, wanted: Extension, key: str | None, digest: str) -> SearchBody:
    _check_key(key)
    with transaction(engine) as session:
        search = lock_search(session, search_id)
        extend(session, search, wanted, key, digest)
        session.flush()
        return _body(session, search)


def _create(engine: Engine, key: str | None, digest: str, check: Callable[[], Checked]) -> SearchBody:
    """Make the search of a request, unless that was made before; `digest` is of all that the request says."""
    _check_key(key)
    with reading(engine) as session:
        earlier = actions.repeat_of(session, key, digest)
        if earlier is not None:
            return _body(session, earlier)
    checked = check()
    try:
        with transaction(engine) as session:
            return _body(session, actions.create_search(session, checked, key, digest))
    except IntegrityError:
        # Only the key can be there already: another request with it was faster.
        with reading(engine) as session:
            earlier = actions.repeat_of(session, key, digest)
            if earlier is None:
                raise
            return _body(session, earlier)


def _check_key(key: str | None) -> None:
    if key is not None and not _KEY.fullmatch(key):
        raise ProblemError("an Idempotency-Key has 1 to 255 printable ASCII characters without spaces")


def _check_fork(request: Request, engine: Engine, search_id: str, body: bytes) -> Checked:
    changes = read_document(request, body, allow_yaml=True)
    if not isinstance(changes, dict):
        message = "write an object with the parts of the spec that are to differ"
        raise InvalidRequestError(message, faults=[Fault("", message)])
    with reading(engine) as session:
        parent = get_search(session, search_id)
        spec = fork_spec(parent, changes)
        known = known_for(session, spec, parent.sources)
    return check_spec(spec, known)


def _check(request: Request, engine: Engine, body: bytes) -> Checked:
    spec = parse_spec(read_document(request, body, allow_yaml=True))
    with reading(engine) as session:
        known = known_for(session, spec)
    return check_spec(spec, known)


def _change(
    response: Response, engine: Engine, search_id: str, action: Callable[[Session, Search], None]
) -> SearchBody:
    with transaction(engine) as session:
        search = lock_search(session, search_id)
        action(session, search)
        session.flush()
        shown = _body(session, search)
    if shown.state is SearchState.CANCELLING:
        response.status_code = 202
        response.headers.update(_retry_after(shown.state))
    return shown


def _show(engine: Engine, search_id: str) -> tuple[SearchBody, int]:
    with reading(engine) as session:
        search = get_search(session, search_id)
        return _body(session, search), search.version


def _body(session: Session, search: Search) -> SearchBody:
    return _bodies(session, [search])[0]


def _bodies(session: Session, searches: list[Search]) -> list[SearchBody]:
    progress = progress_of(session, searches)
    return [search_body(one, progress[one.id], rank_correlation(session, one)) for one in searches]


async def _wait(
    engine: Engine,
    stopping: threading.Event,
    search_id: str,
    seconds: float,
    is_enough: Callable[[int, SearchState], bool],
) -> None:
    """Wait without holding a session, until the search is as wanted, or final, or the time is up."""
    deadline = time.monotonic() + seconds
    while not stopping.is_set():
        version, state = await run_in_threadpool(_look, engine, search_id)
        if state.is_final or is_enough(version, state) or time.monotonic() >= deadline:
            return
        await asyncio.sleep(LOOK_EVERY_S)


def _look(engine: Engine, search_id: str) -> tuple[int, SearchState]:
    with reading(engine) as session:
        return version_of(session, search_id)


def _retry_after(state: SearchState) -> dict[str, str]:
    return {} if state.is_final else {"Retry-After": str(RETRY_AFTER_S[state])}


def _position(position: dict[str, Any]) -> tuple[datetime, str]:
    try:
        created_at, search_id = datetime.fromisoformat(position["created_at"]), position["id"]
        if created_at.tzinfo is not None and isinstance(search_id, str) and search_id.isprintable():
            return created_at, search_id
    except (KeyError, TypeError, ValueError, OverflowError):
        pass
    raise InvalidPageTokenError("pass page_token exactly as next_page_token gave it")
