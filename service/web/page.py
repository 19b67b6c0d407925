"""What all pages share: templates, headers, a session to read with, and forms that only these pages may send."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.responses import RedirectResponse, Response
from fastapi.templating import Jinja2Templates
from sqlalchemy.orm import Session

from service.db import reading
from service.edge import EngineDep
from service.errors import ProblemError

HERE = Path(__file__).parent
POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
HEADERS = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}

templates = Jinja2Templates(HERE / "templates")


class CrossSiteError(ProblemError):
    status = HTTPStatus.FORBIDDEN
    slug = "cross-site"
    title = "This was sent by another site"


def reading_session(engine: EngineDep) -> Iterator[Session]:
    with reading(engine) as session:
        yield session


Reading = Annotated[Session, Depends(reading_session)]


def check_same_site(request: Request) -> None:
    """Refuse a form that another site sent: its reader did not mean to.

    Raises:
        CrossSiteError: the browser says that the form is not from these pages.
    """
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("Host"):
        raise CrossSiteError("this form was not sent by Espalier's own pages")


def render(request: Request, template: str, *, status: int = 200, **values: Any) -> Response:
    """A template, filled."""
    return templates.TemplateResponse(request, template, values, status_code=status, headers=HEADERS)


def redirect(path: str) -> Response:
    """To what a form has led to."""
    return RedirectResponse(path, status_code=303)
