"""Refinements over HTTP."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy.orm import Session

from search_spaces.check import Fault
from service.db import reading, transaction
from service.edge import BodyDep, EngineDep, SearchId, read_model, retry_after
from service.errors import InvalidRequestError, NotFoundError, StateConflictError
from service.models import Search, Trial
from service.refinements.actions import cancel_refinement, request_refinement
from service.refinements.queries import get_refinement, list_refinements
from service.refinements.schemas import MOST_TRIALS, RefinementBody, RefinementPage, RefinementRequest, refinement_body
from service.searches.queries import get_search
from service.trials.fronts import find_front
from service.trials.queries import get_trial

router = APIRouter(tags=["refinements"])
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/RefinementRequest"}}},
    }
}


@router.post("/searches/{search_id}/refinements", status_code=202, openapi_extra=_BODY)
def create_refinements(request: Request, engine: EngineDep, search_id: SearchId, body: BodyDep) -> RefinementPage:
    """Train designs of a finished search on for long; without `trials`, the members of its front.

    What was asked for before, with the same settings, is answered and not done again.
    """
    wanted = read_model(request, body, RefinementRequest)
    with transaction(engine) as session:
        search = get_search(session, search_id)
        trials = find_wanted(session, search, wanted.trials)
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


def find_wanted(session: Session, search: Search, numbers: list[int] | None) -> list[Trial]:
    """The trials of these numbers, each once; without any, the members of the front."""
    if numbers is None:
        found = [trial for trial, _ in find_front(session, search).members]
        if not found:
            raise StateConflictError("the front is empty: nothing has succeeded", extra={"state": search.state})
        if len(found) > MOST_TRIALS:
            detail = f"the front has {len(found)} members; name at most {MOST_TRIALS} trials"
            raise InvalidRequestError(detail, faults=[Fault("/trials", detail)])
        return found
    return [_find(session, search, number, place) for place, number in enumerate(dict.fromkeys(numbers))]


def _find(session: Session, search: Search, number: int, place: int) -> Trial:
    try:
        return get_trial(session, search.id, number)[0]
    except NotFoundError as error:
        raise InvalidRequestError(error.detail, faults=[Fault(f"/trials/{place}", error.detail)]) from None
