"""Estimates over HTTP."""

from __future__ import annotations

from fastapi import APIRouter

from service.db import reading
from service.edge import EngineDep
from service.estimates.actions import estimate
from service.estimates.schemas import EstimateRequest, EstimatesBody

router = APIRouter(prefix="/estimates", tags=["devices"])


@router.post("")
def create_estimates(engine: EngineDep, request: EstimateRequest) -> EstimatesBody:
    """Tell what designs cost now, without a search: from their data, from measurements, by the device's cost model."""
    with reading(engine) as session:
        return estimate(session, request)
