"""Refinements over HTTP."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from service.db import reading, transaction
from service.edge import BodyDep, EngineDep, SearchId, body_of, read_model, retry_after
from service.refinements.actions import cancel_refinement, request_refinement
from service.refinements.queries import get_refinement, list_refinements
from service.refinements.schemas import RefinementBody, RefinementPage, RefinementRequest, refinement_body
from service.searches.queries import get_search
from service.trials.wanted import wanted_trials

router = APIRouter(tags=["refinements"])


@router.post("/searches/{search_id}/refinements", status_code=202, openapi_extra=body_of(RefinementRequest))
def create_refinements(request: Request, engine: EngineDep, search_id: SearchId, body: BodyDep) -> RefinementPage:
    """Train designs of a finished search on for long; without `trials`, the members of its front.

    What was asked for before, with the same settings, is answered and not done again.
    """
    wanted = read_model(request, body, RefinementRequest)
    with transaction(engine) as session:
        search = get_search(session, search_id)
        trials = wanted_trials(session, search, wanted.trials)
        rows = [request_refinement(session, search, trial, wanted.settings())[0] for trial in trials]
        return RefinementPage(items=[refinement_body(get_refinement(session, row.id)) for row in rows])


@router.get("/searches/{search_id}/refinements")
def read_refinements(engine: EngineDep, search_id: SearchId) -> RefinementPage:
    """List a search's refinements, the newest first."""
    with reading(engine) as session:
        get_search(session, search_id)
        return RefinementPage(items=[refinement_body(row) for row in list_refinements(session, search_id)])


@router.get("/refinements/{refinement_id}")
def read_refinement(response: Response, engine: EngineDep, refinement_id: SearchId) -> RefinementBody:
    """Read a refinement."""
    with reading(engine) as session:
        shown = refinement_body(get_refinement(session, refinement_id))
    response.headers.update(retry_after(shown.state.is_final))
    return shown


@router.post("/refinements/{refinement_id}/cancel")
def cancel(engine: EngineDep, refinement_id: SearchId) -> RefinementBody:
    """Stop a refinement; what it has trained is lost. Of one that has ended this changes nothing."""
    with transaction(engine) as session:
        cancel_refinement(session, refinement_id)
        return refinement_body(get_refinement(session, refinement_id))
