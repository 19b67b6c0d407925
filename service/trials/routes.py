"""A search's trials and its front over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter

from service.db import reading
from service.edge import EngineDep, PageSize, PageToken, SearchId, WholeInPath
from service.errors import InvalidPageTokenError
from service.paging import clamp_page_size, decode_token, encode_token
from service.searches.queries import get_search
from service.states import TrialState
from service.trials.fronts import Member, compare_confirmed, find_front, list_finalists
from service.trials.queries import get_trial, list_trials
from service.trials.schemas import (
    BaselineBody,
    ConfirmedFronts,
    FrontBody,
    TrialBody,
    TrialPage,
    TrialWithDetails,
    trial_body,
    trial_with_details,
)

router = APIRouter(prefix="/searches/{search_id}", tags=["trials"])


@router.get("/trials")
def read_trials(
    engine: EngineDep,
    search_id: SearchId,
    state: TrialState | None = None,
    page_size: PageSize = None,
    page_token: PageToken = None,
) -> TrialPage:
    """List a search's trials by number."""
    filters: dict[str, Any] = {"search": search_id, "state": state}
    after = -1 if page_token is None else _number(decode_token(page_token, filters))
    limit = clamp_page_size(page_size)
    with reading(engine) as session:
        get_search(session, search_id)
        rows = list_trials(session, search_id, limit=limit + 1, after=after, state=state)
    items = [trial_body(*row) for row in rows[:limit]]
    token = encode_token({"number": items[-1].number}, filters) if len(rows) > limit else None
    return TrialPage(items=items, next_page_token=token)


@router.get("/trials/{number}")
def read_trial(engine: EngineDep, search_id: SearchId, number: WholeInPath) -> TrialWithDetails:
    """Read one trial with its evidence."""
    with reading(engine) as session:
        return trial_with_details(*get_trial(session, search_id, number))


@router.get("/front")
def read_front(engine: EngineDep, search_id: SearchId) -> FrontBody:
    """Read the Pareto front beside the uniform baseline, and what the finalists scored on `confirm`."""
    with reading(engine) as session:
        search = get_search(session, search_id)
        front = find_front(session, search)
        finalists = list_finalists(session, search_id)
        confirmed = compare_confirmed(search, finalists)
        return FrontBody(
            items=_bodies(front.members),
            hypervolume=front.hypervolume,
            reference_point=dict(front.reference_point),
            knee=front.knee,
            baseline=BaselineBody(items=_bodies(front.baseline), hypervolume=front.baseline_hypervolume),
            finalists=_bodies(finalists),
            confirmed=confirmed and ConfirmedFronts(hypervolume=confirmed[0], baseline_hypervolume=confirmed[1]),
        )


def _bodies(rows: Sequence[Member]) -> list[TrialBody]:
    return [trial_body(*row) for row in rows]


def _number(position: dict[str, Any]) -> int:
    number = position.get("number")
    if not isinstance(number, int) or not 0 <= number < 2**31:
        raise InvalidPageTokenError("pass page_token exactly as next_page_token gave it")
    return number
