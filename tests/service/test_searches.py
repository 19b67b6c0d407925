"""Searches over HTTP: submitted, listed, read, waited for, stopped."""

from __future__ import annotations

import threading
import time
from typing import Any

import httpx
import pytest
import yaml
from sqlalchemy import Engine, func, select

from search_spaces.check import check_spec
from search_spaces.known import Known
from search_spaces.parse import parse_spec
from service.config import Settings
from service.db import reading, transaction
from service.models import Event, Preparation, Search
from service.searches.actions import create_search, move, report_progress
from service.searches.queries import lock_search
from service.states import SearchState
from tests.service.builders import (
    LOCAL_CPU,
    add_device,
    add_running_search,
    add_search,
    add_trial_rows,
    example_spec,
    run_trial,
    success,
    waiting_messages,
)

YAML = {"Content-Type": "application/yaml"}


def submit(client: httpx.Client, spec: dict[str, Any] | None = None, **headers: str) -> httpx.Response:
    return client.post("/v1/searches", json=spec or example_spec(), headers=headers)


def count_searches(engine: Engine) -> int:
    with reading(engine) as session:
        return session.scalar(select(func.count()).select_from(Search)) or 0


def test_submitted_spec_becomes_a_search_with_a_message(
    client: httpx.Client, engine: Engine, settings: Settings
) -> None:
    response = submit(client)
    assert response.status_code == 202
    body = response.json()
    assert response.headers["Location"] == f"/v1/searches/{body['id']}"
    assert int(response.headers["Retry-After"]) > 0
    assert (body["state"], body["name"], body["waiting_for"]) == ("queued", "mobilenet-fashion-cpu", "")
    assert body["progress"]["total"] == example_spec()["budget"]["trials"]
    assert body["spec"]["space"]["group_size"]["choices"] == [1, 2, 4, 8]
    with reading(engine) as session:
        preparation = session.scalars(select(Preparation)).one()
    assert waiting_messages(settings) == [("espalier.prepare", preparation.id)]
    assert preparation.published_at is not None


def test_yaml_and_json_make_the_same_spec(client: httpx.Client) -> None:
    document = yaml.safe_dump(example_spec())
    from_yaml = client.post("/v1/searches", content=document, headers=YAML)
    assert from_yaml.status_code == 202
    assert from_yaml.json()["spec"] == submit(client).json()["spec"]


def test_spec_shown_can_be_submitted_again(client: httpx.Client) -> None:
    shown = submit(client).json()["spec"]
    assert submit(client, shown).json()["spec"] == shown


def test_search_waits_for_its_device_and_is_prepared_once_it_is_announced(
    bare_client: httpx.Client, engine: Engine, settings: Settings
) -> None:
    body = submit(bare_client).json()
    assert "local-cpu" in body["waiting_for"]
    assert waiting_messages(settings) == []
    add_device(engine)
    add_device(engine)
    assert bare_client.get(f"/v1/searches/{body['id']}").json()["waiting_for"] == ""
    assert [task for task, _ in waiting_messages(settings)] == ["espalier.prepare"]


def test_search_submitted_during_the_first_announcement_is_found_by_the_next(engine: Engine) -> None:
    add_device(engine)
    with transaction(engine) as session:
        unaware = check_spec(parse_spec(example_spec()), Known())
        search_id = create_search(session, unaware, None, "").id
    add_device(engine)
    with reading(engine) as session:
        assert session.get_one(Search, search_id).waiting_for == ""
        assert session.scalars(select(Preparation.search_id)).all() == [search_id]


def test_waiting_search_fails_when_its_device_turns_out_unable(bare_client: httpx.Client, engine: Engine) -> None:
    search_id = submit(bare_client).json()["id"]
    add_device(engine, LOCAL_CPU.model_copy(update={"precisions": ("fp32",)}))
    body = bare_client.get(f"/v1/searches/{search_id}").json()
    assert (body["state"], body["problem"]["status"]) == ("failed", 422)
    assert body["problem"]["errors"][0]["pointer"].startswith("/space/precision")


class TestIdempotencyKey:
    def test_same_body_answers_with_the_same_search(self, client: httpx.Client, engine: Engine) -> None:
        first, second = (submit(client, **{"Idempotency-Key": "k1"}) for _ in range(2))
        assert (first.status_code, second.status_code) == (202, 202)
        assert first.json() == second.json()
        assert first.headers["Location"] == second.headers["Location"]
        assert count_searches(engine) == 1

    def test_other_body_is_refused(self, client: httpx.Client, engine: Engine) -> None:
        submit(client, **{"Idempotency-Key": "k1"})
        response = submit(client, example_spec(name="other"), **{"Idempotency-Key": "k1"})
        assert response.status_code == 422
        assert response.json()["type"].endswith("idempotency-key-reused")
        assert count_searches(engine) == 1

    def test_of_many_at_once_one_makes_the_search(self, client: httpx.Client, engine: Engine) -> None:
        answers: list[httpx.Response] = []
        threads = [
            threading.Thread(target=lambda: answers.append(submit(client, **{"Idempotency-Key": "k1"})))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [answer.status_code for answer in answers] == [202] * 8
        assert len({answer.json()["id"] for answer in answers}) == 1
        assert count_searches(engine) == 1

    def test_unprintable_key_is_refused(self, client: httpx.Client) -> None:
        assert submit(client, **{"Idempotency-Key": "a b"}).status_code == 400


def test_check_says_what_would_be_searched_and_stores_nothing(client: httpx.Client, engine: Engine) -> None:
    response = client.post("/v1/searches/check", content=yaml.safe_dump(example_spec()), headers=YAML)
    assert response.status_code == 200
    body = response.json()
    choices = [len(decision["choices"]) for decision in body["decisions"]]
    size = 1
    for count in choices:
        size *= count
    assert body["size"] == size > 1e6
    assert body["baseline_trials"] > 8
    assert body["ranges"]["macs"]["least"] < body["ranges"]["macs"]["greatest"]
    assert count_searches(engine) == 0


class TestList:
    def test_pages_have_every_search_once_the_newest_first(self, client: httpx.Client, engine: Engine) -> None:
        made = [add_search(engine) for _ in range(7)]
        seen: list[str] = []
        token: str | None = None
        while True:
            parameters = {"page_size": 3, **({"page_token": token} if token else {})}
            page = client.get("/v1/searches", params=parameters).json()
            seen += [item["id"] for item in page["items"]]
            token = page["next_page_token"]
            if token is None:
                break
        assert seen == made[::-1]

    def test_filter_by_state(self, client: httpx.Client, engine: Engine) -> None:
        running, _queued = add_running_search(engine), add_search(engine)
        items = client.get("/v1/searches", params={"state": "running"}).json()["items"]
        assert [item["id"] for item in items] == [running]

    def test_token_of_another_filter_is_refused(self, client: httpx.Client, engine: Engine) -> None:
        for _ in range(2):
            add_search(engine)
        token = client.get("/v1/searches", params={"page_size": 1}).json()["next_page_token"]
        response = client.get("/v1/searches", params={"page_token": token, "state": "queued"})
        assert response.status_code == 400
        assert response.json()["type"].endswith("invalid-page-token")

    @pytest.mark.parametrize(
        "token", ["x", "!", "W10", "eyJhIjoxfQ", "bnVsbA", "W3t9LHsic3RhdGUiOm51bGx9XQ", "é", "A" * 9]
    )
    def test_forged_token_is_refused(self, client: httpx.Client, token: str) -> None:
        assert client.get("/v1/searches", params={"page_token": token}).status_code == 400

    def test_page_size_is_clamped(self, client: httpx.Client, engine: Engine) -> None:
        add_search(engine)
        assert len(client.get("/v1/searches", params={"page_size": 10**9}).json()["items"]) == 1
        assert client.get("/v1/searches", params={"page_size": -1}).status_code == 422


class TestRead:
    def test_etag_holds_until_something_changes(self, client: httpx.Client, engine: Engine) -> None:
        search_id = add_running_search(engine)
        path = f"/v1/searches/{search_id}"
        etag = client.get(path).headers["ETag"]
        unchanged = client.get(path, headers={"If-None-Match": etag})
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        assert (unchanged.headers["ETag"], unchanged.headers["Retry-After"]) == (etag, "2")
        (trial,) = add_trial_rows(engine, search_id, 1)
        after_adding = client.get(path, headers={"If-None-Match": etag})
        assert after_adding.status_code == 200
        run_trial(engine, trial.id, success(0.9, 0.001))
        after_running = client.get(path, headers={"If-None-Match": after_adding.headers["ETag"]})
        assert (after_running.status_code, after_running.json()["progress"]["done"]) == (200, 1)

    def test_wait_ends_with_the_next_change(self, client: httpx.Client, engine: Engine) -> None:
        search_id = add_running_search(engine)
        etag = client.get(f"/v1/searches/{search_id}").headers["ETag"]

        def change_soon() -> None:
            time.sleep(0.4)
            with transaction(engine) as session:
                report_progress(session, search_id, "training", 0.5, "half way")

        thread = threading.Thread(target=change_soon)
        thread.start()
        headers = {"If-None-Match": etag, "Prefer": "wait=20"}
        response = client.get(f"/v1/searches/{search_id}", headers=headers)
        thread.join()
        assert response.status_code == 200
        assert response.headers["Preference-Applied"] == "wait=20"
        assert response.json()["activity"] == {"stage": "training", "share": 0.5, "message": "half way"}

    def test_wait_for_nothing_ends_in_time(self, client: httpx.Client, engine: Engine) -> None:
        search_id = add_running_search(engine)
        etag = client.get(f"/v1/searches/{search_id}").headers["ETag"]
        response = client.get(f"/v1/searches/{search_id}", headers={"If-None-Match": etag, "Prefer": "wait=1"})
        assert (response.status_code, response.headers["Preference-Applied"]) == (304, "wait=1")

    def test_created_search_can_be_waited_for(self, client: httpx.Client, engine: Engine) -> None:
        def fail_it_soon() -> None:
            time.sleep(0.5)
            with transaction(engine) as session:
                (search_id,) = session.scalars(select(Search.id)).all()
                search = lock_search(session, search_id)
                move(session, search, SearchState.CANCELLING)
                move(session, search, SearchState.CANCELLED)

        thread = threading.Thread(target=fail_it_soon)
        thread.start()
        response = submit(client, Prefer="respond-async, wait=20")
        thread.join()
        assert (response.status_code, response.json()["state"]) == (202, "cancelled")

    def test_progress_counts_the_baseline_in(self, client: httpx.Client, engine: Engine) -> None:
        search_id = add_running_search(engine, example_spec(budget={"trials": 60}))
        uniform = add_trial_rows(engine, search_id, 3, baseline=True)
        add_trial_rows(engine, search_id, 2)
        run_trial(engine, uniform[0].id, success(0.9, 0.001))
        progress = client.get(f"/v1/searches/{search_id}").json()["progress"]
        assert progress == {
            "total": 63,
            "done": 1,
            "queued": 4,
            "running": 0,
            "succeeded": 1,
            "infeasible": 0,
            "stopped": 0,
            "failed": 0,
            "cancelled": 0,
            "baseline_total": 3,
            "baseline_done": 1,
            "reused": 0,
            "inherited": 0,
        }


class TestVerbs:
    def test_cancel_of_an_idle_search_is_done_at_once(self, client: httpx.Client, engine: Engine) -> None:
        search_id = add_running_search(engine)
        add_trial_rows(engine, search_id, 2)
        first, second = (client.post(f"/v1/searches/{search_id}/cancel") for _ in range(2))
        assert (first.status_code, first.json()["state"]) == (200, "cancelled")
        assert first.json()["progress"]["cancelled"] == 2
        assert second.json() == first.json()

    def test_pause_and_resume_go_back_to_the_state_before(self, client: httpx.Client, engine: Engine) -> None:
        search_id = add_running_search(engine)
        states = [
            client.post(f"/v1/searches/{search_id}/{verb}").json()["state"]
            for verb in ("pause", "pause", "resume", "resume")
        ]
        assert states == ["paused", "paused", "running", "running"]

    def test_resumed_search_is_planned(self, client: httpx.Client, engine: Engine, settings: Settings) -> None:
        search_id = add_running_search(engine)
        client.post(f"/v1/searches/{search_id}/pause")
        client.post(f"/v1/searches/{search_id}/resume")
        assert waiting_messages(settings)[-1] == ("espalier.plan", search_id)

    @pytest.mark.parametrize("verb", ["pause", "resume"])
    def test_illegal_verb_names_what_is_allowed(self, client: httpx.Client, engine: Engine, verb: str) -> None:
        search_id = add_search(engine)
        client.post(f"/v1/searches/{search_id}/cancel")
        response = client.post(f"/v1/searches/{search_id}/{verb}")
        assert response.status_code == 409
        assert (response.json()["state"], response.json()["allowed"]) == ("cancelled", [])

    def test_verb_of_no_search_is_not_found(self, client: httpx.Client) -> None:
        response = client.post("/v1/searches/00000000-0000-0000-0000-000000000000/cancel")
        assert response.status_code == 404


def test_history_tells_every_state(client: httpx.Client, engine: Engine) -> None:
    search_id = add_running_search(engine)
    client.post(f"/v1/searches/{search_id}/cancel")
    with reading(engine) as session:
        rows = session.scalars(select(Event).where(Event.search_id == search_id).order_by(Event.seq)).all()
    assert [row.data["state"] for row in rows] == ["queued", "preparing", "running", "cancelling", "cancelled"]
    assert [row.seq for row in rows] == [1, 2, 3, 4, 5]
