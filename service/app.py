"""The HTTP application: routes, problem documents, the body limit. Importing it loads no machine learning."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from search_spaces.spec import SearchSpec
from service.artifacts.routes import router as artifacts
from service.catalog.routes import router as catalog
from service.comparisons.routes import router as comparisons
from service.config import Settings, get_settings
from service.datasets.routes import router as datasets
from service.db import make_engine
from service.devices.routes import router as devices
from service.edge import PROBLEM_RESPONSES, limit_bodies
from service.estimates.routes import router as estimates
from service.estimates.warm_up import warm_up
from service.events.routes import router as events
from service.exports.routes import router as exports
from service.exports.schemas import ExportRequest
from service.health.routes import router as health
from service.measurements.routes import router as measurements
from service.networks.routes import router as networks
from service.problems import Problem, add_problem_handlers
from service.refinements.routes import router as refinements
from service.refinements.schemas import RefinementRequest
from service.searches.routes import router as searches
from service.searches.schemas import ExtensionRequest
from service.shutdown import noticing_signals
from service.trials.routes import router as trials
from service.web.pages import add_pages, problem_page


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application. Connects to nothing before it is served."""
    settings = settings or get_settings()
    app = FastAPI(
        title="Espalier",
        version=version("espalier"),
        summary="Finds the best compressed form of a neural network for a given piece of hardware.",
        lifespan=_lifespan,
        generate_unique_id_function=_operation_id,
        redirect_slashes=False,
    )
    app.state.settings = settings
    app.state.engine = make_engine(settings.resolved_database_url)
    app.state.stopping = threading.Event()
    app.add_middleware(limit_bodies, upload_limit_bytes=settings.upload_limit_bytes)
    add_problem_handlers(app, problem_page)
    app.include_router(_make_api(), prefix="/v1")
    add_pages(app)
    app.openapi = lambda: _describe(app)  # type: ignore[method-assign]
    return app


def _make_api() -> APIRouter:
    api = APIRouter(responses=PROBLEM_RESPONSES)
    routers = (
        searches,
        comparisons,
        trials,
        events,
        exports,
        refinements,
        artifacts,
        devices,
        estimates,
        measurements,
        networks,
        datasets,
        catalog,
        health,
    )
    for router in routers:
        api.include_router(router)
    return api


_LONGEST_GOODBYE_S = 1.0
"""A database that does not answer must not keep the service from stopping."""


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    warming = threading.Thread(target=warm_up, args=(app.state.engine,), daemon=True)
    warming.start()
    with noticing_signals(app.state.stopping):
        yield
    app.state.stopping.set()
    warming.join(_LONGEST_GOODBYE_S)
    app.state.engine.dispose()


def _operation_id(route: APIRoute) -> str:
    return route.name


def _describe(app: FastAPI) -> dict[str, Any]:
    """Describe the API, with the models of bodies that routes parse themselves, and of problems."""
    if app.openapi_schema is None:
        description = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
        schemas = description.setdefault("components", {}).setdefault("schemas", {})
        for model in (SearchSpec, ExportRequest, ExtensionRequest, RefinementRequest, Problem):
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(schema.pop("$defs", {}))
            schemas[model.__name__] = schema
        app.openapi_schema = description
    return app.openapi_schema
