"""Turns whatever goes wrong in a request into an RFC 9457 problem document, or into a page for a browser."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from search_spaces.faults import Fault, SpecError
from search_spaces.refusals import plain_message, pointer_to
from service.errors import (
    MEDIA_TYPE,
    InvalidRequestError,
    InvalidSpecError,
    NotFoundError,
    ProblemError,
    problem_document,
)

logger = logging.getLogger(__name__)

ShowPage = Callable[[Request, dict[str, Any]], Response]
"""Shows a problem document to a person."""


class FaultBody(BaseModel):
    pointer: str
    detail: str


class Problem(BaseModel):
    """RFC 9457. `errors` points at each fault by JSON pointer (RFC 6901)."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    instance: str | None = None
    errors: list[FaultBody] | None = None


def add_problem_handlers(app: FastAPI, show_page: ShowPage) -> None:
    app.state.show_problem_page = show_page
    app.add_exception_handler(ProblemError, _handle_problem)
    app.add_exception_handler(SpecError, _handle_spec)
    app.add_exception_handler(RequestValidationError, _handle_validation)
    app.add_exception_handler(HTTPException, _handle_http)
    app.add_exception_handler(OperationalError, _handle_database)
    app.add_exception_handler(Exception, _handle_bug)


async def _handle_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return _respond(request, error.document(), error.headers)


async def _handle_spec(request: Request, error: Exception) -> Response:
    assert isinstance(error, SpecError)
    return await _handle_problem(request, InvalidSpecError("the spec has faults", faults=error.faults))


async def _handle_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    if all(one["loc"][:1] == ("path",) for one in error.errors()):
        # An id that cannot be one names nothing.
        return await _handle_problem(request, NotFoundError(f"there is nothing at {request.url.path}"))
    faults = [Fault(pointer_to(_place(one["loc"])), plain_message(one)) for one in error.errors()]
    return await _handle_problem(request, InvalidRequestError("a parameter is not as it should be", faults=faults))


def _place(location: Sequence[str | int]) -> tuple[str | int, ...]:
    """A form's fields are the document; of other parameters it is told where they are."""
    return tuple(location[1:] if location[:1] == ("body",) else location)


async def _handle_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, ProblemError):  # FastAPI wraps whatever is raised while it reads a form
        return await _handle_problem(request, error.__cause__)
    status = HTTPStatus(error.status_code)
    slug = status.phrase.lower().replace(" ", "-")
    document = problem_document(status, slug, status.phrase, f"{request.method} {request.url.path}: {error.detail}")
    headers = dict(error.headers or {})
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_allowed_methods(request))
    return _respond(request, document, headers)


def _allowed_methods(request: Request) -> list[str]:
    """All methods of the path; Starlette's own list has those of the first route with it."""
    scopes = {
        method: {**request.scope, "method": method} for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
    }
    routes = request.app.routes
    return [m for m, scope in scopes.items() if any(route.matches(scope)[0] is Match.FULL for route in routes)]


async def _handle_database(request: Request, error: Exception) -> Response:
    logger.error("the database does not answer", exc_info=error)
    status = HTTPStatus.SERVICE_UNAVAILABLE
    detail = "the database does not answer; try again"
    document = problem_document(status, "database-unavailable", "The database is not available", detail)
    return _respond(request, document, {"Retry-After": "5"})


async def _handle_bug(request: Request, _error: Exception) -> Response:
    # Starlette raises the error again after this response, so that the server logs it.
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    detail = "this is a fault of the service; its log says more"
    return _respond(request, problem_document(status, "internal-error", "Something broke", detail), {})


def _respond(request: Request, document: dict[str, Any], headers: Mapping[str, str]) -> Response:
    content = {**document, "instance": request.url.path}
    if not request.url.path.startswith("/v1/") and "text/html" in request.headers.get("accept", ""):
        page: Response = request.app.state.show_problem_page(request, content)
        page.headers.update(headers)
        return page
    return JSONResponse(content, document["status"], dict(headers), media_type=MEDIA_TYPE)
