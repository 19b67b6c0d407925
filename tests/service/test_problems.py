"""Bad input: every fault is a problem document that points at it, and nothing is stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, func, select

from service.db import reading
from service.models import Event, Preparation, Search
from tests.service.builders import example_spec

JSON, YAML = {"Content-Type": "application/json"}, {"Content-Type": "application/yaml"}
DEVICE = {"metric": "latency_s", "direction": "minimize", "device": "local-cpu"}
ACCURACY = {"metric": "accuracy", "direction": "maximize"}


def in_space(**parts: Any) -> dict[str, Any]:
    return {"space": {**example_spec()["space"], **parts}}


BAD_SPECS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"colour": "red"}, "/colour"),
    "unknown key inside": (in_space(prune_ratio={"high": 0.5, "hihg": 1}), "/space/prune_ratio/hihg"),
    "glob without a match": (
        in_space(group_size={"choices": [1, 2], "layers": ["nothing.*"]}),
        "/space/group_size/layers/0",
    ),
    "precision that is not executed": (in_space(precision={"choices": ["fp32", "w4a4"]}), "/space/precision/choices/1"),
    "metric that no device tells": (
        {"objectives": [ACCURACY, {**DEVICE, "metric": "energy_j"}]},
        "/objectives/1/metric",
    ),
    "empty space": ({"space": {}}, "/space"),
    "space of one design": ({"space": {"prune_ratio": {"low": 0.0, "high": 0.0}}}, "/space"),
    "limit that no design meets": ({"limits": [{"metric": "size_bytes", "max": 10}]}, "/limits/0/max"),
    "unknown data set": ({"dataset": {"name": "fashion_mnits"}}, "/dataset/name"),
    "unknown family": ({"network": {"family": "alexnet", "input": [1, 28, 28]}}, "/network/family"),
    "text for a number": ({"budget": {"trials": "many"}}, "/budget/trials"),
    "no objective": ({"objectives": []}, "/objectives"),
    "name like a path": ({"name": "../../etc"}, "/name"),
}


@pytest.fixture
def stores_nothing(engine: Engine) -> Iterator[None]:
    yield
    with reading(engine) as session:
        for model in (Search, Preparation, Event):
            assert session.scalar(select(func.count()).select_from(model)) == 0


def problem_of(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["status"] == status
    assert document["instance"] == response.request.url.path
    assert {"type", "title", "detail"} <= document.keys()
    return document


@pytest.mark.usefixtures("stores_nothing")
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # what is wrong is found before any is asked
class TestSpecs:
    @pytest.mark.parametrize("case", BAD_SPECS)
    def test_fault_is_pointed_at(self, client: httpx.Client, case: str) -> None:
        changes, pointer = BAD_SPECS[case]
        problem = problem_of(client.post("/v1/searches", json=example_spec(**changes)), 422)
        assert pointer in [error["pointer"] for error in problem["errors"]]
        assert all(error["detail"] for error in problem["errors"])

    def test_all_faults_are_told_at_once(self, client: httpx.Client) -> None:
        spec = example_spec(dataset={"name": "x"}, limits=[{"metric": "accuracy", "min": 2}])
        problem = problem_of(client.post("/v1/searches", json=spec), 422)
        assert {error["pointer"] for error in problem["errors"]} == {"/dataset/name", "/limits/0/min"}

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"[" * 100_000 + b"]" * 100_000,
            b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
            b'{"name": NaN}',
            b'{"name": Infinity}',
            b'{"name": 1e999}',
            b'{"name": "\\u0000"}',
            b'{"name": "\\ud800"}',
            b"\xff\xfe",
        ],
        ids=lambda body: body[:12].decode("latin-1"),
    )
    def test_body_that_is_no_document(self, client: httpx.Client, body: bytes) -> None:
        problem_of(client.post("/v1/searches", content=body, headers=JSON), 400)

    @pytest.mark.parametrize(
        "body", [b"a: &a [*a]", b"a: !!python/object:os.system x", b"a: [", b"- " * 10_000, b"a: .nan"]
    )
    def test_yaml_that_is_no_document(self, client: httpx.Client, body: bytes) -> None:
        problem_of(client.post("/v1/searches", content=body, headers=YAML), 400)

    @pytest.mark.parametrize("body", ["[]", "null", "1", '"text"'])
    def test_document_that_is_no_spec(self, client: httpx.Client, body: str) -> None:
        problem_of(client.post("/v1/searches", content=body, headers=JSON), 422)

    @pytest.mark.parametrize("media_type", ["text/plain", "application/xml", "multipart/form-data", ""])
    def test_other_media_type(self, client: httpx.Client, media_type: str) -> None:
        response = client.post("/v1/searches", content=b"{}", headers={"Content-Type": media_type})
        problem_of(response, 415)
        assert "application/json" in response.headers["Accept-Post"]

    def test_ten_megabytes_with_their_length(self, client: httpx.Client) -> None:
        problem_of(client.post("/v1/searches", content=b" " * 10_000_000, headers=JSON), 413)

    def test_ten_megabytes_without_their_length(self, client: httpx.Client) -> None:
        def chunks() -> Iterator[bytes]:
            for _ in range(160):
                yield b" " * 65_536

        problem_of(client.post("/v1/searches", content=chunks(), headers=JSON), 413)

    def test_largest_body_that_is_read(self, client: httpx.Client) -> None:
        problem_of(client.post("/v1/searches", content=b" " * 2**20, headers=JSON), 400)


def test_dry_run_finds_the_same_faults(client: httpx.Client) -> None:
    for changes, pointer in BAD_SPECS.values():
        problem = problem_of(client.post("/v1/searches/check", json=example_spec(**changes)), 422)
        assert pointer in [error["pointer"] for error in problem["errors"]]


def test_precision_that_is_unknown_says_what_the_device_executes(client: httpx.Client) -> None:
    spec = example_spec(**in_space(precision={"choices": ["fp32", "w4a4"]}))
    (error,) = problem_of(client.post("/v1/searches", json=spec), 422)["errors"]
    assert "w8a8" in error["detail"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/searches/nothing", 404),
        ("GET", "/v1/searches/%00", 404),
        ("GET", "/v1/searches/00000000-0000-0000-0000-000000000000", 404),
        ("GET", "/v1/searches/00000000-0000-0000-0000-000000000000/trials", 404),
        ("GET", "/v1/searches/00000000-0000-0000-0000-000000000000/trials/99999999999999999999", 404),
        ("GET", "/v1/searches/00000000-0000-0000-0000-000000000000/front", 404),
        ("GET", "/v1/exports/00000000-0000-0000-0000-000000000000", 404),
        ("GET", "/v1/artifacts/..%2f..%2fetc%2fpasswd", 404),
        ("PUT", "/v1/searches", 405),
        ("DELETE", "/v1/health", 405),
        ("GET", "/v1/searches?state=sleeping", 422),
        ("GET", "/v1/searches?page_size=x", 422),
    ],
)
def test_every_refusal_is_a_problem(client: httpx.Client, method: str, path: str, status: int) -> None:
    response = client.request(method, path)
    problem = problem_of(response, status)
    if status == 422:
        assert problem["errors"][0]["pointer"].startswith("/query/")
    if status == 405:
        assert "GET" in response.headers["Allow"].split(", ")


def test_what_breaks_inside_says_nothing_of_the_inside(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("service.devices.routes.list_devices", broken)
    response = client.get("/v1/devices")
    problem_of(response, 500)
    assert "secret" not in response.text
