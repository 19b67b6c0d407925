"""The catalog over HTTP: what a spec may name besides networks, data sets and devices."""

from __future__ import annotations

from fastapi import APIRouter

from service.catalog.schemas import MetricPage, NamedPage, importance_page, metric_page, sampler_page
from service.db import reading
from service.edge import EngineDep
from service.offers import OfferKind, list_offers

router = APIRouter(tags=["catalog"])


@router.get("/samplers")
def read_samplers(engine: EngineDep) -> NamedPage:
    """List the samplers."""
    with reading(engine) as session:
        return sampler_page(list_offers(session, OfferKind.SAMPLER))


@router.get("/importances")
def read_importances(engine: EngineDep) -> NamedPage:
    """List what may rank channels."""
    with reading(engine) as session:
        return importance_page(list_offers(session, OfferKind.IMPORTANCE))


@router.get("/metrics")
def read_metrics(engine: EngineDep) -> MetricPage:
    """List what may be an objective or a limit."""
    with reading(engine) as session:
        return metric_page(list_offers(session, OfferKind.SCORE))
