"""Requests made from the API's own description, good and bad: none breaks the service, and answers are as described.

The searches in paths exist, so that handlers get to work; everything else is as hostile as the generator likes.
"""

from __future__ import annotations

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from sqlalchemy import Engine

from service.app import create_app
from tests.service.builders import add_running_search, add_trial_rows, run_trial, success

EXAMPLES = 20
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
api = schemathesis.openapi.from_dict(create_app().openapi())


@pytest.fixture
def searches(client: httpx.Client, engine: Engine) -> tuple[str, str]:
    """One that runs and has a front, and one that is over: streams of it end."""
    running, over = add_running_search(engine), add_running_search(engine)
    (trial,) = add_trial_rows(engine, running, 1)
    run_trial(engine, trial.id, success(0.9, 0.001))
    assert client.post(f"/v1/searches/{over}/cancel").json()["state"] == "cancelled"
    return running, over


# PostgreSQL refuses more than SQLite does: NUL in texts, numbers that are too large.
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@api.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_as_described(case: schemathesis.Case, client: httpx.Client, searches: tuple[str, str]) -> None:
    if "search_id" in case.path_parameters and case.meta.generation.mode.is_positive:
        running, over = searches
        case.path_parameters["search_id"] = over if case.path.endswith("/stream") else running
    response = case.call(base_url=str(client.base_url), timeout=10)
    case.validate_response(response, checks=CHECKS)
    if response.status_code >= 400:
        assert response.headers["content-type"] == ["application/problem+json"]
        assert response.json()["status"] == response.status_code
