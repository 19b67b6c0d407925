"""The catalog over HTTP: what a spec may name."""

from __future__ import annotations

from fastapi import APIRouter

from service.catalog.schemas import DatasetPage, NamedPage, dataset_page, network_page, sampler_page

router = APIRouter(tags=["catalog"])


@router.get("/networks")
def read_networks() -> NamedPage:
    """List the network families."""
    return network_page()


@router.get("/datasets")
def read_datasets() -> DatasetPage:
    """List the data sets."""
    return dataset_page()


@router.get("/samplers")
def read_samplers() -> NamedPage:
    """List the samplers."""
    return sampler_page()
