"""Exports over HTTP."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError
from sqlalchemy.orm import Session

from search_spaces.check import Fault
from search_spaces.parse import pointer_to
from service.db import reading, transaction
from service.edge import BodyDep, EngineDep, SearchId, answer_headers, read_document, retry_after
from service.errors import InvalidRequestError, NotFoundError, StateConflictError
from service.exports.actions import request_export
from service.exports.queries import get_export, list_exports
from service.exports.schemas import ExportBody, ExportPage, ExportRequest, export_body
from service.models import Search, Trial
from service.searches.queries import get_search
from service.trials.fronts import find_front
from service.trials.queries import get_trial

router = APIRouter(tags=["exports"])
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ExportRequest"}}},
    }
}


@router.post("/searches/{search_id}/exports", status_code=202, openapi_extra=_BODY)
def create_export(
    request: Request, response: Response, engine: EngineDep, search_id: SearchId, body: BodyDep
) -> ExportBody:
    """Ask for a trial's files; without `trial`, for the knee's. Asking again answers with the same export."""
    wanted = _parse(request, body)
    with transaction(engine) as session:
        trial = find_wanted(session, get_search(session, search_id), wanted.trial)
        export, _ = request_export(session, trial)
        shown = export_body(get_export(session, export.id))
    response.headers.update(answer_headers(f"/v1/exports/{shown.id}", shown.state.is_final))
    return shown


@router.get("/searches/{search_id}/exports")
def read_exports(engine: EngineDep, search_id: SearchId) -> ExportPage:
    """List a search's exports, the newest first."""
    with reading(engine) as session:
        get_search(session, search_id)
        return ExportPage(items=[export_body(row) for row in list_exports(session, search_id)])


@router.get("/exports/{export_id}")
def read_export(response: Response, engine: EngineDep, export_id: SearchId) -> ExportBody:
    """Read an export."""
    with reading(engine) as session:
        shown = export_body(get_export(session, export_id))
    response.headers.update(retry_after(shown.state.is_final))
    return shown


def _parse(request: Request, body: bytes) -> ExportRequest:
    try:
        return ExportRequest.model_validate(read_document(request, body))
    except ValidationError as error:
        faults = [Fault(pointer_to(tuple(one["loc"])), str(one["msg"])) for one in error.errors()]
        raise InvalidRequestError("the request has faults", faults=faults) from None


def find_wanted(session: Session, search: Search, number: int | None) -> Trial:
    """The trial of that number; without one the front's knee, as it is now."""
    if number is None:
        number = find_front(session, search).knee
        if number is None:
            raise StateConflictError("the front is empty: nothing has succeeded yet", extra={"state": search.state})
    try:
        trial, _ = get_trial(session, search.id, number)
    except NotFoundError as error:
        raise InvalidRequestError(error.detail, faults=[Fault("/trial", error.detail)]) from None
    return trial
