"""Extending and forking searches: over HTTP, on the command line, on the page."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, select
from typer.testing import CliRunner, Result

from search_spaces.objectives import Outcome, TrialState
from search_spaces.spec import BudgetSpec
from service import cli
from service.config import Settings, get_settings
from service.db import reading, transaction
from service.models import Search, Trial
from service.searches.actions import move
from service.searches.forks import merge
from service.searches.queries import lock_search
from service.states import SearchState
from tests.service.builders import (
    add_running_search,
    add_search,
    add_trial_rows,
    example_spec,
    get_row,
    run_trial,
    success,
    waiting_messages,
)

YAML = {"Content-Type": "application/yaml"}
NOWHERE = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def over(engine: Engine) -> str:
    """A search that has succeeded, with one good trial and one that failed."""
    search_id = add_running_search(engine)
    good, bad = add_trial_rows(engine, search_id, 2)
    run_trial(engine, good.id, success(0.9, 0.001))
    run_trial(engine, bad.id, Outcome(TrialState.FAILED, reason="it broke"))
    with transaction(engine) as session:
        move(session, lock_search(session, search_id), SearchState.SUCCEEDED)
    return search_id


def extend(client: httpx.Client, search_id: str, body: Any, **headers: str) -> httpx.Response:
    return client.post(f"/v1/searches/{search_id}/extend", json=body, headers=headers)


def fork(client: httpx.Client, search_id: str, body: Any, **headers: str) -> httpx.Response:
    return client.post(f"/v1/searches/{search_id}/fork", json=body, headers=headers)


class TestExtend:
    def test_it_runs_again_with_a_larger_budget(
        self, client: httpx.Client, engine: Engine, settings: Settings, over: str
    ) -> None:
        response = extend(client, over, {"trials": 5, "wall_time_s": 60})
        body = response.json()
        assert (response.status_code, body["state"], body["finished_at"]) == (202, "running", None)
        assert int(response.headers["Retry-After"]) > 0
        assert body["spec"]["budget"] == BudgetSpec(trials=2 + 5, wall_time_s=900.0).model_dump()  # of the search
        assert [(one["trials"], one["wall_time_s"]) for one in body["extensions"]] == [(5, 60.0)]
        assert waiting_messages(settings)[-1] == ("espalier.plan", over)
        with reading(engine) as session:
            columns = select(Trial.state, Trial.attempt, Trial.published_at).order_by(Trial.number)
            assert [tuple(row) for row in session.execute(columns)][1:] == [("queued", 0, None)]

    def test_one_that_goes_on_cannot_be_extended(self, client: httpx.Client, engine: Engine) -> None:
        response = extend(client, add_running_search(engine), {"trials": 5})
        assert (response.status_code, response.json()["state"]) == (409, "running")
        assert response.json()["type"].endswith("state-conflict")

    def test_one_that_was_never_prepared_cannot_be_extended(self, client: httpx.Client, engine: Engine) -> None:
        search_id = add_search(engine)
        client.post(f"/v1/searches/{search_id}/cancel")
        response = extend(client, search_id, {"trials": 5})
        assert response.status_code == 409
        assert "submit it anew" in response.json()["detail"]

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({}, "/trials"),
            ({"trials": 0}, "/trials"),
            ({"trials": 99_999}, "/trials"),
            ({"trials": 1, "wall_time_s": 0}, "/wall_time_s"),
            ({"trials": 1, "designs": 3}, "/designs"),
        ],
    )
    def test_faults_are_pointed_at(
        self, client: httpx.Client, engine: Engine, over: str, body: dict[str, Any], pointer: str
    ) -> None:
        response = extend(client, over, body)
        assert response.status_code == 422
        assert [one["pointer"] for one in response.json()["errors"]] == [pointer]
        assert get_row(engine, over).state is SearchState.SUCCEEDED

    def test_the_same_key_extends_once(self, client: httpx.Client, engine: Engine, over: str) -> None:
        for _ in range(2):
            assert extend(client, over, {"trials": 5}, **{"Idempotency-Key": "k"}).status_code == 202
        assert len(get_row(engine, over).extensions) == 1
        other = extend(client, over, {"trials": 6}, **{"Idempotency-Key": "k"})
        assert other.json()["type"].endswith("idempotency-key-reused")

    def test_no_such_search(self, client: httpx.Client) -> None:
        assert extend(client, NOWHERE, {"trials": 1}).status_code == 404


class TestFork:
    def test_it_is_a_search_that_begins_with_its_parent(self, client: httpx.Client, engine: Engine, over: str) -> None:
        changes = {"name": "tighter", "budget": {"trials": 9}, "limits": [{"metric": "size_bytes", "max": 400_000}]}
        response = fork(client, over, changes)
        assert response.status_code == 202
        body = response.json()
        assert response.headers["Location"] == f"/v1/searches/{body['id']}"
        parent = client.get(f"/v1/searches/{over}").json()["spec"]
        assert body["spec"] == parent | {
            "name": "tighter",
            "budget": parent["budget"] | {"trials": 9},
            "limits": [{"metric": "size_bytes", "max": 400_000.0, "min": None, "device": None}],
            "warm_start": [over],
        }

    def test_parts_in_yaml(self, client: httpx.Client, over: str) -> None:
        response = client.post(f"/v1/searches/{over}/fork", content="sampler: {name: tpe}", headers=YAML)
        assert response.json()["spec"]["sampler"]["name"] == "tpe"

    def test_another_search_can_be_named_too(self, client: httpx.Client, engine: Engine, over: str) -> None:
        other = add_running_search(engine)
        assert fork(client, over, {"warm_start": [other, over]}).json()["spec"]["warm_start"] == [over, other]

    @pytest.mark.parametrize(
        ("changes", "pointer"),
        [
            ({"space": {"group_size": {"choices": [1, 2]}}}, "/space/group_size/choices"),
            ({"network": {"width": 0.25}}, "/network/width"),
            ({"bugdet": {"trials": 3}}, "/bugdet"),
            ({"budget": {"trials": "many"}}, "/budget/trials"),
            ({"budget": 3}, "/budget"),
            ({"warm_start": [NOWHERE]}, "/warm_start/1"),
            ({"warm_start": [{}]}, "/warm_start/1"),
            ({"warm_start": 3}, "/warm_start"),
            ({"limits": [{"metric": "size_bytes", "max": 1}]}, "/limits/0/max"),
            ([], ""),
        ],
        ids=str,
    )
    def test_faults_are_pointed_at(
        self, client: httpx.Client, engine: Engine, over: str, changes: Any, pointer: str
    ) -> None:
        response = fork(client, over, changes)
        assert response.status_code == 422
        assert [one["pointer"] for one in response.json()["errors"]] == [pointer]
        with reading(engine) as session:
            assert session.scalars(select(Search.id)).all() == [over]

    def test_the_same_key_makes_one(self, client: httpx.Client, over: str) -> None:
        first, second = (fork(client, over, {"name": "x"}, **{"Idempotency-Key": "k"}).json() for _ in range(2))
        assert first["id"] == second["id"]
        submitted = client.post("/v1/searches", json={"name": "x"}, headers={"Idempotency-Key": "k"})
        assert submitted.json()["type"].endswith("idempotency-key-reused")

    def test_merging_is_that_of_rfc_7396(self) -> None:
        document = {"a": {"b": 1, "c": 2}, "d": [1, 2], "e": 3}
        assert merge(document, {"a": {"b": None, "x": {"y": None}}, "d": [3], "e": {"f": 4}}) == {
            "a": {"c": 2, "x": {}},
            "d": [3],
            "e": {"f": 4},
        }
        assert document == {"a": {"b": 1, "c": 2}, "d": [1, 2], "e": 3}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
class TestCommands:
    @pytest.fixture(autouse=True)
    def _here(self, client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ESPALIER_PORT", str(client.base_url.port))
        monkeypatch.setenv("COLUMNS", "200")
        get_settings.cache_clear()

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli.app, list(arguments))

    def test_extend(self, engine: Engine, over: str) -> None:
        assert f"{over} is running" in self.run("extend", over[:8], "--trials", "3").stdout
        assert get_row(engine, over).spec["budget"]["trials"] == 2 + 3
        assert "by 3 trials" in self.run("show", over).stdout
        refused = self.run("extend", over, "--trials", "3")
        assert (refused.exit_code, "once it is over" in refused.stderr) == (1, True)

    def test_fork(self, engine: Engine, over: str, tmp_path: Path) -> None:
        file = tmp_path / "changes.yaml"
        file.write_text("budget: {trials: 7}\nsampler: {seed: 3}")
        settings = ["--set", "budget.trials=9", "--set", "limits=[{metric: size_bytes, max: 400000}]"]
        made = self.run("fork", over[:8], str(file), *settings)
        assert made.exit_code == 0, made.stderr
        spec = get_row(engine, made.stdout.strip()).spec
        assert (spec["budget"]["trials"], spec["sampler"]["seed"], spec["limits"][0]["max"]) == (9, 3, 400_000)
        assert spec["warm_start"] == [over]

    @pytest.mark.parametrize("setting", ["budget", "=3", "budget..trials=3", "name=[", "name=x --set name.y=3"])
    def test_a_setting_that_says_nothing_is_refused(self, engine: Engine, over: str, setting: str) -> None:
        assert self.run("fork", over, "--set", *setting.split()).exit_code == 2
        with reading(engine) as session:
            assert session.scalars(select(Search.id)).all() == [over]

    def test_front_and_show_say_whose_trial_it_was(self, engine: Engine, over: str) -> None:
        with transaction(engine) as session:
            row = session.scalars(select(Trial).where(Trial.number == 0)).one()
            row.obtained, row.origin = "inherited", {"search": "1a2b3c4d-0", "trial": 7, "name": "before"}
        assert "found by trial 7 of before (1a2b3c4d)" in " ".join(self.run("front", over).stdout.split())
        assert "1 taken over from others" in self.run("show", over).stdout

    def test_a_fork_of_another_space_says_which_part(self, over: str) -> None:
        refused = self.run("fork", over, "--set", "network.width=0.25")
        assert refused.exit_code == 1
        assert "/network/width" in refused.stderr


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
class TestPage:
    def test_a_search_that_is_over_can_be_extended_and_forked(
        self, client: httpx.Client, engine: Engine, over: str
    ) -> None:
        page = client.get(f"/searches/{over}").text
        assert f'action="/searches/{over}/extend"' in page
        answer = client.post(f"/searches/{over}/extend", data={"trials": "4"})
        assert answer.status_code == 303
        assert get_row(engine, over).spec["budget"]["trials"] == 2 + 4
        page = client.get(f"/searches/{over}").text
        assert "/extend" not in page
        assert re.search(r"Extended 20\d\d-\d\d-\d\d \d\d:\d\d by 4 trials\.", page)
        assert client.post(f"/searches/{over}/extend", data={"trials": "4"}).status_code == 303
        assert get_row(engine, over).spec["budget"]["trials"] == 2 + 4
        assert client.post(f"/searches/{over}/extend", data={"trials": "x"}).status_code == 422

    def test_a_fork_begins_as_a_text_that_can_be_submitted(
        self, client: httpx.Client, engine: Engine, over: str
    ) -> None:
        page = client.get("/searches/new", params={"fork": over}).text
        text = html.unescape(page.partition("<textarea")[2].partition(">")[2].partition("</textarea>")[0])
        assert over in text
        assert "Fork of mobilenet-fashion-cpu" in page
        refused = client.post(f"/searches/new?fork={over}", data={"spec": text.replace("budget:", "bugdet:")})
        assert refused.status_code == 422
        assert "Fork of mobilenet-fashion-cpu" in refused.text
        assert f'action="/searches/new?fork={over}"' in refused.text
        answer = client.post("/searches/new", data={"spec": text.replace("mobilenet-fashion-cpu", "forked")})
        assert answer.status_code == 303
        made = get_row(engine, answer.headers["Location"].rpartition("/")[2])
        assert made.spec == get_row(engine, over).spec | {"name": "forked", "warm_start": [over]}
        assert (
            f'Began with what <a href="/searches/{over}">{over[:8]}</a> had found.'
            in client.get(f"/searches/{made.id}").text
        )
        assert client.get("/searches/new", params={"fork": NOWHERE}).status_code == 404

    def test_whose_trial_it_was_is_shown_with_a_link(self, client: httpx.Client, engine: Engine, over: str) -> None:
        search_id = add_running_search(engine, example_spec(name="later"))
        (trial,) = add_trial_rows(engine, search_id, 1)
        with transaction(engine) as session:
            row = session.get_one(Trial, trial.id)
            row.obtained, row.state, row.values = "reused", "succeeded", {"accuracy": 0.9, "latency_s": 0.001}
            row.origin = {"search": over, "trial": 0, "name": "<b>first</b>"}
        page = client.get(f"/searches/{search_id}").text
        assert f'href="/searches/{over}"' in page
        assert "found by trial 0 of &lt;b&gt;first&lt;/b&gt;" in page
        assert "1 found by other searches before" in page
        body = client.get(f"/v1/searches/{search_id}/trials/0").json()
        assert (body["obtained"], body["origin"]) == ("reused", {"search": over, "trial": 0, "name": "<b>first</b>"})
