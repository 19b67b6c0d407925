"""Refinements: who may ask for one, what is answered, and which weights are then handed out."""

from __future__ import annotations

import httpx
import pytest
from sqlalchemy import Engine

from service.config import Settings
from service.db import reading, transaction
from service.exports.actions import finish_export
from service.exports.queries import final_weights, weights_of
from service.finalists.actions import finish_finalist
from service.leases import claim, renew
from service.models import Export, Finalist, Refinement, Trial
from service.refinements.actions import finish_refinement
from service.refinements.queries import latest_refinement
from service.searches.actions import move
from service.searches.queries import lock_search
from service.states import JobState, SearchState
from tests.service.builders import add_running_search, add_trial_rows, run_trial, success, waiting_messages

TUNED = {"before": {"accuracy": 0.9}, "values": {"accuracy": 0.95, "latency_s": 0.001}, "weights_digest": "d" * 64}


@pytest.fixture
def search_id(engine: Engine) -> str:
    """Three trials, two of them on the front, and one that failed."""
    search_id = add_running_search(engine)
    trials = add_trial_rows(engine, search_id, 4)
    for trial, found in zip(trials, (success(0.9, 0.002), success(0.8, 0.001), success(0.7, 0.003)), strict=False):
        run_trial(engine, trial.id, found)
    return search_id


def end(engine: Engine, search_id: str) -> None:
    with transaction(engine) as session:
        move(session, lock_search(session, search_id), SearchState.SUCCEEDED)


def fulfil(engine: Engine, refinement_id: str, result: dict[str, object] = TUNED) -> None:
    with transaction(engine) as session:
        attempt = claim(session, Refinement, refinement_id, "worker", 60)
        assert attempt is not None
        assert finish_refinement(session, refinement_id, attempt, JobState.SUCCEEDED, result=result)


def test_the_front_is_refined_and_shown_side_by_side(
    client: httpx.Client, engine: Engine, settings: Settings, search_id: str
) -> None:
    end(engine, search_id)
    path = f"/v1/searches/{search_id}/refinements"
    asked = client.post(path, json={"epochs": 3})
    assert asked.status_code == 202
    items = asked.json()["items"]
    assert {item["trial"] for item in items} == {0, 1}
    assert {item["state"] for item in items} == {"queued"}
    messages = [message for message in waiting_messages(settings) if message[0] == "espalier.refine"]
    assert {row_id for _, row_id in messages} == {item["id"] for item in items}
    first = next(item for item in items if item["trial"] == 0)
    fulfil(engine, first["id"])
    shown = client.get(f"/v1/refinements/{first['id']}").json()
    assert (shown["state"], shown["settings"]) == ("succeeded", {"epochs": 3, "learning_rate": 0.01})
    assert shown["searched"]["accuracy"] == 0.9
    assert (shown["before"]["accuracy"], shown["values"]["accuracy"]) == (0.9, 0.95)
    assert len(client.get(path).json()["items"]) == 2
    page = client.get(f"/searches/{search_id}").text
    assert "3 epochs at a learning rate of 0.01" in page
    assert "95.00" in page
    assert shown["kept"] is None
    assert "stays" not in page
    kinds = [event["kind"] for event in client.get(f"/v1/searches/{search_id}/events").json()["items"]]
    assert kinds.count("refinement") == 3


def test_it_is_told_when_training_did_not_help(client: httpx.Client, engine: Engine, search_id: str) -> None:
    end(engine, search_id)
    (asked,) = client.post(f"/v1/searches/{search_id}/refinements", json={"epochs": 1, "trials": [0]}).json()["items"]
    fulfil(engine, asked["id"], TUNED | {"details": {"fine_tuning": {"kept": False}}})
    assert client.get(f"/v1/refinements/{asked['id']}").json()["kept"] is False
    assert "so what it began with stays" in client.get(f"/searches/{search_id}").text


def test_what_did_not_help_is_not_handed_out(client: httpx.Client, engine: Engine, search_id: str) -> None:
    end(engine, search_id)
    with transaction(engine) as session:
        (trial, *_) = session.query(Trial).filter_by(search_id=search_id).order_by(Trial.number)
    path = f"/v1/searches/{search_id}/refinements"
    for epochs, kept in ((1, True), (2, False)):
        (asked,) = client.post(path, json={"epochs": epochs, "trials": [0]}).json()["items"]
        fulfil(engine, asked["id"], TUNED | {"details": {"fine_tuning": {"kept": kept}}})
    with reading(engine) as session:
        latest = latest_refinement(session, trial.id)
    assert latest is not None
    assert latest.settings["epochs"] == 1


@pytest.mark.parametrize("is_running", [False, True])
def test_a_refinement_can_be_stopped(client: httpx.Client, engine: Engine, search_id: str, is_running: bool) -> None:
    end(engine, search_id)
    (asked,) = client.post(f"/v1/searches/{search_id}/refinements", json={"epochs": 9, "trials": [0]}).json()["items"]
    attempt = None
    if is_running:
        with transaction(engine) as session:
            attempt = claim(session, Refinement, asked["id"], "worker", 60)
    stopped = client.post(f"/v1/refinements/{asked['id']}/cancel")
    assert (stopped.status_code, stopped.json()["state"]) == (200, "cancelled")
    with transaction(engine) as session:
        assert claim(session, Refinement, asked["id"], "another", 60) is None
        if attempt is not None:
            assert not renew(session, Refinement, asked["id"], attempt, 60), "its worker stops"
            assert not finish_refinement(session, asked["id"], attempt, JobState.SUCCEEDED, result=TUNED)
    assert client.post(f"/v1/refinements/{asked['id']}/cancel").json()["state"] == "cancelled"
    assert client.post("/v1/refinements/00000000-0000-0000-0000-000000000000/cancel").status_code == 404
    (again,) = client.post(f"/v1/searches/{search_id}/refinements", json={"epochs": 9, "trials": [0]}).json()["items"]
    assert again["id"] != asked["id"]
    form = f"/searches/{search_id}/refinements/{again['id']}/cancel"
    assert form in client.get(f"/searches/{search_id}").text
    assert client.post(form).status_code in (200, 303)
    assert client.get(f"/v1/refinements/{again['id']}").json()["state"] == "cancelled"


def test_what_was_asked_for_before_is_not_done_again(client: httpx.Client, engine: Engine, search_id: str) -> None:
    end(engine, search_id)
    path = f"/v1/searches/{search_id}/refinements"

    def ask(**body: object) -> str:
        (item,) = client.post(path, json={"epochs": 3, "trials": [0]} | body).json()["items"]
        return str(item["id"])

    first = ask()
    assert ask() == first
    assert ask(trials=[0, 0]) == first
    assert ask(epochs=4) != first
    assert ask(learning_rate=0.02) != first
    fulfil(engine, first)
    assert ask() == first


def test_what_cannot_be_refined_is_refused(client: httpx.Client, engine: Engine, search_id: str) -> None:
    path = f"/v1/searches/{search_id}/refinements"
    goes_on = client.post(path, json={"epochs": 1})
    assert goes_on.status_code == 409
    assert "once it is over" in goes_on.json()["detail"]
    end(engine, search_id)
    assert client.post(path, json={"epochs": 1, "trials": [3]}).status_code == 409
    unknown = client.post(path, json={"epochs": 1, "trials": [0, 77]})
    assert (unknown.status_code, unknown.json()["errors"][0]["pointer"]) == (422, "/trials/1")
    for body in (
        {},
        {"epochs": 0},
        {"epochs": "many"},
        {"epochs": 1, "trials": []},
        {"epochs": 1, "trials": [-1]},
        {"epochs": 1, "learning_rate": 0},
        {"epochs": 1, "other": 1},
        [],
    ):
        assert client.post(path, json=body).status_code == 422, body
    assert client.get(path).json()["items"] == []
    assert client.get("/v1/refinements/00000000-0000-0000-0000-000000000000").status_code == 404


def test_an_export_after_a_refinement_is_another_one(client: httpx.Client, engine: Engine, search_id: str) -> None:
    end(engine, search_id)
    exports = f"/v1/searches/{search_id}/exports"
    before = client.post(exports, json={"trial": 0}).json()["id"]
    with transaction(engine) as session:
        attempt = claim(session, Export, before, "worker", 60)
        assert attempt is not None
        assert finish_export(session, before, attempt, JobState.FAILED, "no file here")
    before = client.post(exports, json={"trial": 0}).json()["id"]
    (asked,) = client.post(f"/v1/searches/{search_id}/refinements", json={"epochs": 1, "trials": [0]}).json()["items"]
    assert client.post(exports, json={"trial": 0}).json()["id"] == before
    with transaction(engine) as session:
        assert claim(session, Export, before, "worker", 60) is not None
    fulfil(engine, asked["id"])
    after = client.post(exports, json={"trial": 0}).json()["id"]
    assert after != before
    assert client.post(exports, json={"trial": 0}).json()["id"] == after


def test_an_export_that_waited_for_longer_has_the_newest_weights(
    client: httpx.Client, engine: Engine, search_id: str
) -> None:
    """A worker takes what there is when it begins, so that one file is enough."""
    end(engine, search_id)
    exports = f"/v1/searches/{search_id}/exports"
    waiting = client.post(exports, json={"trial": 0}).json()["id"]
    (asked,) = client.post(f"/v1/searches/{search_id}/refinements", json={"epochs": 1, "trials": [0]}).json()["items"]
    fulfil(engine, asked["id"])
    assert client.post(exports, json={"trial": 0}).json()["id"] == waiting
    with transaction(engine) as session:
        attempt = claim(session, Export, waiting, "worker", 60)
        assert attempt is not None
        final = final_weights(session, session.get_one(Export, waiting).trial_id)
        assert weights_of(final) == {"origin": "refined", "epochs": 1.0, "learning_rate": 0.01}
    assert client.post(exports, json={"trial": 0}).json()["id"] == waiting
    with transaction(engine) as session:
        told = {"weights": weights_of(final)}
        assert finish_export(session, waiting, attempt, JobState.SUCCEEDED, report=told)
    assert client.post(exports, json={"trial": 0}).json()["id"] == waiting
    assert "Trial 0, refined: 1 epoch at a learning rate of 0.01:" in client.get(f"/searches/{search_id}").text


def test_once_a_finalist_is_confirmed_its_own_weights_are_exported(
    client: httpx.Client, engine: Engine, search_id: str
) -> None:
    exports = f"/v1/searches/{search_id}/exports"
    early = client.post(exports, json={"trial": 0}).json()["id"]
    with transaction(engine) as session:
        trial_id = session.get_one(Export, early).trial_id
        attempt = claim(session, Export, early, "worker", 60)
        assert attempt is not None
        assert weights_of(final_weights(session, trial_id)) == {"origin": "searched"}
        told = {"weights": {"origin": "searched"}}
        assert finish_export(session, early, attempt, JobState.SUCCEEDED, report=told)
    assert client.post(exports, json={"trial": 0}).json()["id"] == early
    with transaction(engine) as session:
        finalist = Finalist(search_id=search_id, trial_id=trial_id)
        session.add(finalist)
        session.flush()
        attempt = claim(session, Finalist, finalist.id, "worker", 60)
        assert attempt is not None
        assert finish_finalist(session, finalist.id, attempt, JobState.SUCCEEDED, values={"accuracy": 0.92})
    late = client.post(exports, json={"trial": 0}).json()["id"]
    assert late != early
    with reading(engine) as session:
        final = final_weights(session, trial_id)
    assert weights_of(final) == {"origin": "confirmed"}
    page = client.get(f"/searches/{search_id}").text
    assert "Trial 0, as found:" in page
    assert "Trial 0: <span" in page, "of the one that waits nobody knows it yet"


def test_older_ones_fold_away_and_those_under_way_do_not(client: httpx.Client, engine: Engine, search_id: str) -> None:
    end(engine, search_id)
    path = f"/v1/searches/{search_id}/refinements"
    for epochs in range(1, 9):
        (asked,) = client.post(path, json={"epochs": epochs, "trials": [0]}).json()["items"]
        if epochs != 2:
            fulfil(engine, asked["id"])
    shown, _, folded = client.get(f"/searches/{search_id}").text.partition('<details id="older-refinements">')
    assert [f"Trial 0, {epochs} epoch" in shown for epochs in range(1, 9)] == [
        epochs in (2, 4, 5, 6, 7, 8) for epochs in range(1, 9)
    ]
    assert "<summary>2 older</summary>" in folded
    assert "Trial 0, 1 epoch at" in folded
    assert "Trial 0, 3 epochs at" in folded


def test_the_page_asks_for_it(client: httpx.Client, engine: Engine, search_id: str) -> None:
    assert 'id="refinements"' not in client.get(f"/searches/{search_id}").text
    end(engine, search_id)
    assert 'id="refinements"' in client.get(f"/searches/{search_id}").text
    form = f"/searches/{search_id}/refinements"
    assert client.post(form, data={"trial": "", "epochs": "2.5"}).status_code in (200, 303)
    items = client.get(f"/v1/searches/{search_id}/refinements").json()["items"]
    assert {item["settings"]["epochs"] for item in items} == {2.5}
    slow = {"trial": "0", "epochs": "2.5", "learning_rate": "0.002"}
    assert client.post(form, data=slow).status_code in (200, 303)
    items = client.get(f"/v1/searches/{search_id}/refinements").json()["items"]
    assert {item["settings"]["learning_rate"] for item in items} == {0.01, 0.002}
    refused = client.post(form, data=slow | {"learning_rate": "99"})
    assert refused.status_code == 422
    assert "learning rate: " in refused.text
    assert "data-refining" in client.get(f"/searches/{search_id}").text
    assert client.post(form, data={"trial": "0", "epochs": "-1"}).status_code == 422
    assert client.post(form, data={"trial": "x", "epochs": "1"}).status_code == 404
