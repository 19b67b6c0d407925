"""Exports over HTTP."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from service.db import reading, transaction
from service.edge import BodyDep, EngineDep, SearchId, answer_headers, body_of, read_model, retry_after
from service.exports.actions import request_export
from service.exports.queries import get_export, list_exports
from service.exports.schemas import ExportBody, ExportPage, ExportRequest, export_body
from service.searches.queries import get_search
from service.trials.wanted import wanted_trial

router = APIRouter(tags=["exports"])


@router.post("/searches/{search_id}/exports", status_code=202, openapi_extra=body_of(ExportRequest))
def create_export(
    request: Request, response: Response, engine: EngineDep, search_id: SearchId, body: BodyDep
) -> ExportBody:
    """Ask for a trial's files; without `trial`, for the knee's. Asking again answers with the same export."""
    wanted = read_model(request, body, ExportRequest)
    with transaction(engine) as session:
        trial = wanted_trial(session, get_search(session, search_id), wanted.trial)
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
