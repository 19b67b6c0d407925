"""A device on another machine, as far as one machine can show it: a worker of its own, PostgreSQL, Redis, the service.

Nobody else could do its work: the worker for all other things has an evaluator that fails at once.
"""

import signal

import httpx
from sqlalchemy import select

from service.db import make_engine, reading
from service.machine import machine_name
from service.models import Finalist, Preparation, Trial
from tests.end_to_end.running import ESPALIER, FINAL, assert_complete, digits_spec, running_program, wait_for

NAME = "lab epyc.1"
GENERAL = [ESPALIER, "worker", "--queues", "control,trials", "--evaluator", "false"]
OF_DEVICE = [ESPALIER, "worker", "--device", f"{NAME}=local-cpu"]
ON_DEVICE = digits_spec(
    objectives=[
        {"metric": "accuracy", "direction": "maximize"},
        {"metric": "latency_s", "direction": "minimize", "device": NAME},
    ],
    budget={"trials": 3, "concurrency": 1},
)


def owners(engine, search_id):
    """Who works on a row of the search just now."""
    with reading(engine) as session:
        return {
            owner
            for model in (Preparation, Trial, Finalist)
            for owner in session.scalars(
                select(model.lease_owner).where(model.search_id == search_id, model.lease_owner.is_not(None))
            )
        }


def device_called(service, name):
    return next(device for device in service.get("devices")["items"] if device["name"] == name)


def await_state(service, engine, search_id, is_reached, seen, limit_s=60):
    def reached():
        seen.update(owners(engine, search_id))
        search = service.search(search_id)
        return search if is_reached(search) else None

    return wait_for(reached, limit_s, lambda: str(service.search(search_id)))


def await_export(service, search_id):
    number = service.get(f"searches/{search_id}/front")["items"][0]["number"]
    answer = httpx.post(f"{service.url}/v1/searches/{search_id}/exports", json={"trial": number}, timeout=30)
    assert answer.status_code == 202, answer.text
    path = f"exports/{answer.json()['id']}"

    def ended():
        export = service.get(path)
        return export if export["state"] in FINAL else None

    return wait_for(ended, 60, lambda: str(service.get(path)))


def test_a_search_runs_where_its_device_is_and_waits_while_that_is_away(served, tmp_path):
    service, environment, command = served
    engine = make_engine(environment["ESPALIER_DATABASE_URL"])
    seen: set[str] = set()
    log = tmp_path / "device.log"
    with (
        running_program(GENERAL, environment, tmp_path / "general.log"),
        running_program(command, environment, tmp_path / "service.log"),
    ):
        service.await_ready()
        wait_for(lambda: service.get("devices")["items"], 60, lambda: (tmp_path / "general.log").read_text())
        search_id = service.submit(ON_DEVICE)
        first = service.search(search_id)
        assert first["state"] == "queued"
        assert f"no worker has announced the device '{NAME}' yet" in first["waiting_for"]

        with running_program(OF_DEVICE, environment, log) as one:
            await_state(service, engine, search_id, lambda search: search["progress"]["done"] >= 1, seen)
            assert {owner.rpartition(":")[2] for owner in seen} == {str(one.pid)}
            shown = device_called(service, NAME)
            assert (shown["kind"], shown["is_live"], shown["host"]) == ("local-cpu", True, machine_name())
            service.await_running_trial(search_id)
            one.send_signal(signal.SIGKILL)
            one.wait()
        waiting = await_state(service, engine, search_id, lambda search: search["waiting_for"], seen)
        assert waiting["state"] == "running"
        assert f"start its worker: espalier worker --device '{NAME}=local-cpu'" in waiting["waiting_for"]
        assert not device_called(service, NAME)["is_live"]

        seen.clear()
        with running_program(OF_DEVICE, environment, log) as two:
            search = await_state(service, engine, search_id, lambda search: search["state"] in FINAL, seen)
            assert {owner.rpartition(":")[2] for owner in seen} == {str(two.pid)}
            assert search["state"] == "succeeded", (search, log.read_text())
            assert search["waiting_for"] == ""
            assert_complete(service, search_id, budget=3)
            assert await_export(service, search_id)["state"] == "succeeded"  # measured again, where the device is
    engine.dispose()
