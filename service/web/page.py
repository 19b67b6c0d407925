"""What all pages share: templates, headers, a session to read with, and forms that only these pages may send."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.responses import RedirectResponse, Response
from fastapi.templating import Jinja2Templates
from sqlalchemy.orm import Session

from service.db import reading
from service.edge import EngineDep

HERE = Path(__file__).parent
POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
PICTURE_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Of a picture by itself, which brings its own style."""
HEADERS = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}

templates = Jinja2Templates(HERE / "templates")


def reading_session(engine: EngineDep) -> Iterator[Session]:
    with reading(engine) as session:
        yield session


Reading = Annotated[Session, Depends(reading_session)]


def render(request: Request, template: str, *, status: int = 200, **values: Any) -> Response:
    """A template, filled."""
    return templates.TemplateResponse(request, template, values, status_code=status, headers=HEADERS)


def redirect(path: str) -> Response:
    """To what a form has led to."""
    return RedirectResponse(path, status_code=303)
