"""Devices come and go: whose a name is, which searches wait for one, and where their messages go."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from search_spaces.objectives import Metric
from service.config import Settings
from service.db import reading, transaction
from service.devices.actions import Announcer, DeviceTakenError, announce, find_stranded, leave, note_absence
from service.devices.queries import LIVE_FOR_S
from service.models import Device, Export, Finalist, Preparation
from service.queue import QUEUE_OF, QueueName, TaskName, queue_of
from tests.service.builders import (
    LOCAL_CPU,
    add_running_search,
    add_trial_rows,
    example_spec,
    get_row,
    waiting_messages,
)

HERE, RESTARTED, ELSEWHERE = Announcer("here:1", "here"), Announcer("here:2", "here"), Announcer("there:1", "there")
LAB = LOCAL_CPU.model_copy(update={"name": "lab", "fingerprint": {"processor": "EPYC", "runtime": "1.24"}})
UPGRADED = LAB.model_copy(update={"fingerprint": {"processor": "EPYC", "runtime": "1.25"}})
ON_LAB = [
    {"metric": "accuracy", "direction": "maximize"},
    {"metric": "latency_s", "direction": "minimize", "device": "lab"},
]


def say(engine: Engine, capabilities: Any = LAB, announcer: Announcer = HERE, kind: str = "local-cpu") -> None:
    with transaction(engine) as session:
        announce(session, capabilities, announcer, kind)


def row_of(engine: Engine) -> Device:
    with reading(engine) as session:
        return session.get_one(Device, "lab")


def let_it_die(engine: Engine) -> None:
    with transaction(engine) as session:
        session.get_one(Device, "lab").seen_at -= timedelta(seconds=LIVE_FOR_S)


class TestName:
    @pytest.mark.parametrize(
        ("capabilities", "announcer", "said"),
        [
            (LAB, ELSEWHERE, "here:1 has announced it, and lives. Give"),
            (UPGRADED, ELSEWHERE, "it differs in runtime"),
            (UPGRADED, RESTARTED, "it differs in runtime"),
        ],
    )
    def test_is_refused_while_it_stands_for_another(
        self, engine: Engine, capabilities: Any, announcer: Announcer, said: str
    ) -> None:
        say(engine)
        before = row_of(engine)
        with pytest.raises(DeviceTakenError, match=said) as caught:
            say(engine, capabilities, announcer)
        assert "lab is taken" in str(caught.value)
        assert "espalier worker --device NAME=local-cpu" in str(caught.value)
        after = row_of(engine)
        assert (after.owner, after.capabilities, after.seen_at) == ("here:1", before.capabilities, before.seen_at)

    def test_is_refused_to_a_machine_that_is_called_alike(self, engine: Engine) -> None:
        say(engine, announcer=Announcer("lab (0a1b2c3d):1", "lab (0a1b2c3d)"))
        with pytest.raises(DeviceTakenError, match=r"lab \(0a1b2c3d\):1 has announced it"):
            say(engine, announcer=Announcer("lab (9f8e7d6c):1", "lab (9f8e7d6c)"))

    def test_is_the_same_machines_after_a_restart(self, engine: Engine) -> None:
        say(engine)
        say(engine, LAB, RESTARTED)
        assert row_of(engine).owner == "here:2"

    def test_is_free_once_its_owner_is_dead(self, engine: Engine) -> None:
        say(engine)
        let_it_die(engine)
        say(engine, UPGRADED, ELSEWHERE)
        assert (row_of(engine).owner, row_of(engine).host) == ("there:1", "there")

    def test_is_free_once_its_owner_has_left(self, engine: Engine) -> None:
        say(engine)
        with transaction(engine) as session:
            leave(session, HERE.owner)
        say(engine, UPGRADED, ELSEWHERE)
        assert row_of(engine).owner == "there:1"

    def test_of_a_model_is_everybodys(self, engine: Engine) -> None:
        for capabilities, announcer in ((LAB, HERE), (UPGRADED, ELSEWHERE)):
            say(engine, capabilities.model_copy(update={"simulated": True}), announcer)
        assert (row_of(engine).owner, row_of(engine).host) == ("there:1", "")


def test_shown_with_its_kind_its_machine_and_whether_it_lives(bare_client: httpx.Client, engine: Engine) -> None:
    say(engine)
    (shown,) = bare_client.get("/v1/devices").json()["items"]
    assert (shown["name"], shown["kind"], shown["host"], shown["is_live"]) == ("lab", "local-cpu", "here", True)
    let_it_die(engine)
    assert bare_client.get("/v1/devices").json()["items"][0]["is_live"] is False


def test_new_search_waits_for_a_device_whose_worker_died(
    bare_client: httpx.Client, engine: Engine, settings: Settings
) -> None:
    say(engine)
    let_it_die(engine)
    body = bare_client.post("/v1/searches", json=example_spec(objectives=ON_LAB, limits=[])).json()
    assert "lab was last seen at" in body["waiting_for"]
    assert body["waiting_for"].endswith(" on here; start its worker: espalier worker --device lab=local-cpu")
    assert waiting_messages(settings) == []
    say(engine)
    assert get_row(engine, body["id"]).waiting_for == ""
    assert [task for task, _ in waiting_messages(settings)] == ["espalier.prepare"]


def test_search_that_runs_says_that_its_device_is_away_until_it_is_back(
    bare_client: httpx.Client, engine: Engine
) -> None:
    say(engine)
    search_id = add_running_search(engine, example_spec(objectives=ON_LAB, limits=[]))
    assert strand(engine) == []
    let_it_die(engine)
    assert strand(engine) == [search_id]
    body = bare_client.get(f"/v1/searches/{search_id}").json()
    assert (body["state"], "lab was last seen at" in body["waiting_for"]) == ("running", True)
    assert "Waiting: the device lab" in bare_client.get(f"/searches/{search_id}").text
    assert strand(engine) == []
    say(engine)
    assert (get_row(engine, search_id).waiting_for, get_row(engine, search_id).state) == ("", "running")
    notes = [event["data"].get("message") for event in events_of(bare_client, search_id) if event["kind"] == "note"]
    assert notes == [body["waiting_for"], "the device is here"]


def test_search_that_is_over_waits_for_nothing(bare_client: httpx.Client, engine: Engine) -> None:
    say(engine)
    search_id = add_running_search(engine, example_spec(objectives=ON_LAB, limits=[]))
    let_it_die(engine)
    strand(engine)
    bare_client.post(f"/v1/searches/{search_id}/cancel")
    assert (get_row(engine, search_id).state, get_row(engine, search_id).waiting_for) == ("cancelled", "")


def strand(engine: Engine) -> list[str]:
    """What the reaper does each round."""
    with reading(engine) as session:
        stranded = find_stranded(session)
    for search_id in stranded:
        with transaction(engine) as session:
            note_absence(session, search_id)
    return stranded


def events_of(client: httpx.Client, search_id: str) -> list[dict[str, Any]]:
    return list(client.get(f"/v1/searches/{search_id}/events?page_size=100").json()["items"])


@pytest.mark.parametrize(
    ("device", "is_simulated", "suffix"),
    [("lab", False, ".lab"), ("lab", True, ""), (None, False, "")],
    ids=["device", "simulated device", "no device"],
)
def test_what_measures_is_sent_to_the_device(
    engine: Engine, device: str | None, is_simulated: bool, suffix: str
) -> None:
    say(engine, LAB.model_copy(update={"simulated": is_simulated}))
    sizes = [{"metric": str(Metric.SIZE_BYTES), "direction": "minimize"}]
    search_id = add_running_search(engine, example_spec(objectives=ON_LAB if device else sizes, limits=[]))
    (trial,) = add_trial_rows(engine, search_id, 1)
    with transaction(engine) as session:
        finalist, export = (
            Finalist(search_id=search_id, trial_id=trial.id),
            Export(id="e", search_id=search_id, trial_id=trial.id),
        )
        session.add_all([finalist, export])
        session.flush()
        preparation = session.query(Preparation).filter_by(search_id=search_id).one()
        rows = {
            TaskName.PREPARE: preparation.id,
            TaskName.RUN: trial.id,
            TaskName.CONFIRM: finalist.id,
            TaskName.EXPORT: export.id,
        }
        found = {task: queue_of(session, task, row_id) for task, row_id in rows.items()}
        assert found == {task: f"{QUEUE_OF[task]}{suffix}" for task in rows}
        assert queue_of(session, TaskName.PLAN, search_id) == QueueName.CONTROL
        assert queue_of(session, TaskName.INDEX, "i") == QueueName.TRIALS
