"""Comparisons over HTTP."""

from __future__ import annotations

from fastapi import APIRouter

from service.comparisons.queries import compare
from service.comparisons.schemas import ComparisonBody, comparison_body
from service.db import reading
from service.edge import EngineDep, SearchId
from service.searches.queries import get_search

router = APIRouter(prefix="/searches/{search_id}/comparison", tags=["searches"])


@router.get("")
def read_comparison(engine: EngineDep, search_id: SearchId) -> ComparisonBody:
    """Compare a search with the newest others that ask the same question, whatever their samplers and seeds."""
    with reading(engine) as session:
        return comparison_body(compare(session, get_search(session, search_id)))
