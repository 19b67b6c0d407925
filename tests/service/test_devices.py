"""Devices come and go: whose a name is, which searches wait for one, and where their messages go."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from search_spaces.accelerators.models import MODELS
from search_spaces.capabilities import DeviceCapabilities
from search_spaces.objectives import Metric
from service.config import Settings
from service.db import reading, transaction
from service.devices.actions import (
    Announcer,
    DeviceTakenError,
    announce,
    find_stranded,
    leave,
    note_absence,
    wake_waiting,
)
from service.devices.queries import LIVE_FOR_S, absent_devices, is_live
from service.models import Device, Export, Finalist, Preparation, Search
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
MODEL = LAB.model_copy(update={"simulated": True, "fingerprint": {"hardware": "a"}})
OTHER_MODEL = MODEL.model_copy(update={"fingerprint": {"hardware": "b"}})
CLOSED_FORM = MODELS["roofline-t4"].capabilities
MEASURING = LAB.model_copy(update={"name": CLOSED_FORM.name})
ON_LAB = [
    {"metric": "accuracy", "direction": "maximize"},
    {"metric": "latency_s", "direction": "minimize", "device": "lab"},
]


def say(engine: Engine, capabilities: Any = LAB, announcer: Announcer = HERE, kind: str = "local-cpu") -> None:
    with transaction(engine) as session:
        announce(session, capabilities, announcer, kind)
    wake_waiting(engine)


def row_of(engine: Engine, name: str = "lab") -> Device:
    with reading(engine) as session:
        return session.get_one(Device, name)


def let_it_die(engine: Engine, name: str = "lab") -> None:
    with transaction(engine) as session:
        session.get_one(Device, name).seen_at -= timedelta(seconds=LIVE_FOR_S)


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
            leave(session, HERE.owner, [LAB.name])
        say(engine, UPGRADED, ELSEWHERE)
        assert row_of(engine).owner == "there:1"

    def test_is_not_freed_by_a_worker_that_was_not_the_last_to_announce_it(self, engine: Engine) -> None:
        say(engine)
        say(engine, LAB, RESTARTED)
        with transaction(engine) as session:
            leave(session, HERE.owner, [LAB.name])
        with pytest.raises(DeviceTakenError):
            say(engine, LAB, ELSEWHERE)

    def test_of_a_closed_form_is_everybodys(self, engine: Engine) -> None:
        newer = CLOSED_FORM.model_copy(update={"fingerprint": {"version": "2"}})
        for capabilities, announcer in ((CLOSED_FORM, HERE), (newer, ELSEWHERE)):
            say(engine, capabilities, announcer)
        device = row_of(engine, CLOSED_FORM.name)
        assert (device.owner, device.host, device.capabilities["fingerprint"]) == ("there:1", "", {"version": "2"})

    def test_of_another_model_is_of_all_who_have_the_same_one(self, engine: Engine) -> None:
        say(engine, MODEL, HERE)
        say(engine, MODEL, ELSEWHERE)
        assert (row_of(engine).owner, row_of(engine).host) == ("there:1", "")
        with pytest.raises(DeviceTakenError, match="there:1 has announced it, and lives, and it differs in hardware"):
            say(engine, OTHER_MODEL, HERE)
        assert row_of(engine).capabilities["fingerprint"] == {"hardware": "a"}
        let_it_die(engine)
        say(engine, OTHER_MODEL, HERE)
        assert row_of(engine).capabilities["fingerprint"] == {"hardware": "b"}

    @pytest.mark.parametrize(
        ("first", "second", "said"),
        [
            (LAB, MODEL, "stands for one that measures, and this one is simulated"),
            (MODEL, LAB, "stands for one that is simulated, and this one measures"),
            (CLOSED_FORM, MEASURING, "stands for one that is simulated, and this one measures"),
            (MEASURING, CLOSED_FORM, "stands for one that measures, and this one is simulated"),
        ],
    )
    def test_of_what_measures_is_never_that_of_a_model(
        self, engine: Engine, first: DeviceCapabilities, second: DeviceCapabilities, said: str
    ) -> None:
        """Not even of one that is away: a search that waits for it would go on with the other."""
        say(engine, first)
        let_it_die(engine, first.name)
        with pytest.raises(DeviceTakenError, match=said) as caught:
            say(engine, second, ELSEWHERE)
        assert caught.value.seen_at is None
        assert DeviceCapabilities.model_validate(row_of(engine, first.name).capabilities) == first


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
    assert notes == [body["waiting_for"], "what it waited for is here"]


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


def test_search_that_cannot_be_looked_at_silences_no_device_and_holds_up_no_other(
    bare_client: httpx.Client, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    broken, whole = (
        bare_client.post("/v1/searches", json=example_spec(objectives=ON_LAB, limits=[])).json()["id"] for _ in range(2)
    )
    broken, whole = sorted([broken, whole])  # it is looked at first
    with transaction(engine) as session:
        session.get_one(Search, broken).spec = {}
    say(engine)
    assert is_live(row_of(engine))
    assert (get_row(engine, whole).waiting_for, get_row(engine, broken).waiting_for != "") == ("", True)
    assert f"search {broken} waits, and cannot be looked at again" in caplog.text


def test_model_that_is_away_is_said_with_the_command_of_a_worker_that_has_it(
    engine: Engine,
) -> None:
    for capabilities in (MODEL, CLOSED_FORM):
        say(engine, capabilities, kind="")
        let_it_die(engine, capabilities.name)
    with reading(engine) as session:
        absent = absent_devices(session)
    assert absent["lab"].endswith("start its worker: espalier worker --device lab")
    assert absent[CLOSED_FORM.name].endswith("start any worker: espalier worker")


@pytest.mark.parametrize(
    ("device", "suffix"),
    [(LAB, ".lab"), (MODEL, ".lab"), (CLOSED_FORM, ""), (None, "")],
    ids=["device", "model that not all have", "closed form", "no device"],
)
def test_what_measures_is_sent_to_the_device(engine: Engine, device: DeviceCapabilities | None, suffix: str) -> None:
    objectives = [{"metric": str(Metric.SIZE_BYTES), "direction": "minimize"}]
    if device is not None:
        say(engine, device)
        objectives.append({"metric": str(Metric.LATENCY_S), "direction": "minimize", "device": device.name})
    search_id = add_running_search(engine, example_spec(objectives=objectives, limits=[]))
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
