"""What all routes share: the engine, bodies up to a limit, preconditions, preferences. Knows no table."""

from __future__ import annotations

import re
import threading
from typing import Annotated, Any, TypeVar
from urllib.parse import quote, urlsplit

from fastapi import Depends, Form, Query, Request, Response
from fastapi import Path as PathParameter
from pydantic import BaseModel, ValidationError
from sqlalchemy import Engine
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from search_spaces.faults import Fault, SpecError
from search_spaces.parse import parse_document
from search_spaces.refusals import plain_faults
from search_spaces.spec import SEARCH_PATTERN
from service.config import Settings
from service.errors import (
    BodyTooLargeError,
    CrossSiteError,
    InvalidRequestError,
    MalformedBodyError,
    UnsupportedMediaTypeError,
)

BODY_LIMIT_BYTES = 2**20
UPLOAD_PATHS = frozenset({"/v1/networks", "/v1/datasets", "/v1/measurements/import", "/networks/new", "/datasets/new"})
LONGEST_WAIT_S = 60.0
JSON_TYPES = frozenset({"application/json"})
YAML_TYPES = frozenset({"application/yaml", "application/x-yaml", "text/yaml"})
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?(?:$|[,;\s])", re.IGNORECASE)
_LARGEST_INTEGER = 2**31 - 1


def get_engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


def get_app_settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


def get_stopping(request: Request) -> threading.Event:
    stopping: threading.Event = request.app.state.stopping
    return stopping


EngineDep = Annotated[Engine, Depends(get_engine)]
SettingsDep = Annotated[Settings, Depends(get_app_settings)]
StoppingDep = Annotated[threading.Event, Depends(get_stopping)]
SearchId = Annotated[str, PathParameter(pattern=SEARCH_PATTERN)]
SearchInQuery = Annotated[str | None, Query(pattern=SEARCH_PATTERN)]
PageSize = Annotated[int | None, Query(ge=0, description="at most 500; more is answered with 500")]
PageToken = Annotated[str | None, Query(description="next_page_token of the page before")]
Whole = Annotated[int, Query(ge=0, le=_LARGEST_INTEGER)]
LONGEST_NAME = 100
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._ -]*$"
NameInPath = Annotated[str, PathParameter(max_length=LONGEST_NAME, pattern=_NAME)]
NameInQuery = Annotated[str | None, Query(max_length=LONGEST_NAME, pattern=_NAME)]
NameInForm = Annotated[str, Form(max_length=LONGEST_NAME, pattern=_NAME)]
WholeInPath = Annotated[int, PathParameter(ge=0, le=_LARGEST_INTEGER)]


def check_name(name: str) -> str:
    """A name that comes from a page's form.

    Raises:
        InvalidRequestError: nothing can be called so.
    """
    if len(name) > LONGEST_NAME or not re.fullmatch(_NAME, name):
        message = "write letters, digits, dots, dashes, underscores and spaces, at most 100, a letter or digit first"
        raise InvalidRequestError("the name cannot be used", faults=[Fault("/name", message)])
    return name


def check_same_site(headers: Headers) -> None:
    """Refuse a form that another site sent: its reader did not mean to, and a browser asks nobody before it sends one.

    Raises:
        CrossSiteError: the browser says that the form is not from these pages.
    """
    origin = headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != headers.get("Host"):
        raise CrossSiteError("this form was not sent by Espalier's own pages")


def limit_bodies(app: ASGIApp, upload_limit_bytes: int) -> ASGIApp:
    """Middleware: whoever reads a body larger than the limit gets `BodyTooLargeError`, at once or on the way.

    Where users hand over files the limit is theirs, and some more for the rest of the form; and before any of it is
    read, a form of another site is refused.
    """

    async def limited(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        is_upload = scope["method"] == "POST" and scope["path"] in UPLOAD_PATHS
        limit = BODY_LIMIT_BYTES + (upload_limit_bytes if is_upload else 0)
        headers = Headers(scope=scope)
        declared = headers.get("Content-Length", "0")
        left = limit

        async def counted() -> Message:
            nonlocal left
            if is_upload:
                check_same_site(headers)
            if declared.isdecimal() and int(declared[:20]) > limit:
                raise _too_large(limit)
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise _too_large(limit)
            return message

        await app(scope, counted, send)

    return limited


def _too_large(limit: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"a body may have {limit:,} bytes", headers={"Connection": "close"})


async def read_body(request: Request) -> bytes:
    return await request.body()


def read_document(request: Request, body: bytes, *, allow_yaml: bool = False) -> Any:
    """Parse a body by its media type.

    Raises:
        UnsupportedMediaTypeError: it is neither JSON nor, where allowed, YAML.
        MalformedBodyError: it is not what it says, or is nested too deep.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    allowed = JSON_TYPES | YAML_TYPES if allow_yaml else JSON_TYPES
    if media_type not in allowed:
        accept = ", ".join(sorted(allowed))
        raise UnsupportedMediaTypeError(f"send {accept}, and say so in Content-Type", headers={"Accept-Post": accept})
    try:
        return parse_document(body, yaml=media_type in YAML_TYPES)
    except SpecError as error:
        raise MalformedBodyError("the body cannot be read", faults=error.faults) from error


Model = TypeVar("Model", bound=BaseModel)


def read_model(request: Request, body: bytes, model: type[Model]) -> Model:
    """Parse a JSON body as a model.

    Raises:
        UnsupportedMediaTypeError, MalformedBodyError: as `read_document`.
        InvalidRequestError: it has faults, each with its place.
    """
    try:
        return model.model_validate(read_document(request, body))
    except ValidationError as error:
        raise InvalidRequestError("the request has faults", faults=plain_faults(error.errors())) from None


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """What the API's description says of a JSON body that a route reads by `read_model`."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def preferred_wait_s(request: Request) -> float | None:
    """`Prefer: wait=N` in seconds, at most a minute; None when nothing of the kind is asked for (RFC 7240)."""
    match = _WAIT.search(request.headers.get("prefer", ""))
    return None if match is None else min(float(match[1]), LONGEST_WAIT_S)


def etag_of(version: int) -> str:
    """A strong validator: every change of what is shown counts the version up."""
    return f'"{version}"'


def is_known(request: Request, etag: str) -> bool:
    """Whether the client has this already (`If-None-Match`)."""
    known = request.headers.get("if-none-match", "")
    return any(tag.strip().removeprefix("W/") in (etag, "*") for tag in known.split(","))


def not_modified(headers: dict[str, str]) -> Response:
    return Response(status_code=304, headers=headers)


def answer_headers(path: str, is_final: bool) -> dict[str, str]:
    """Of an answer that tells of work at `/v1/<noun>/<name>`: where it is, and when to look again."""
    return {"Location": quote(path)} | retry_after(is_final)


def retry_after(is_final: bool) -> dict[str, str]:
    return {} if is_final else {"Retry-After": "1"}


BodyDep = Annotated[bytes, Depends(read_body)]
PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {
        "description": description,
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for status, description in (("4XX", "The request is at fault"), ("5XX", "The service is at fault"))
}
