"""A worker's devices: what it leaves out, what it frees, and which queues it reads."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Engine

from search_spaces.accelerators.models import MODELS
from search_spaces.capabilities import DeviceCapabilities
from search_spaces.objectives import Metric
from service.config import Settings
from service.db import reading, transaction
from service.devices.actions import Announcer, DeviceTakenError, announce
from service.devices.queries import LIVE_FOR_S
from service.models import Device
from service.queue import QueueName
from workers import presence as presence_module
from workers.announce import Offered
from workers.app import Role, _queues_of
from workers.presence import Presence, await_free

ONE, TWO, ELSEWHERE = Announcer("here:1", "here"), Announcer("here:2", "here"), Announcer("there:1", "there")


def told(name: str, **changes: object) -> DeviceCapabilities:
    values = {"name": name, "description": "", "precisions": ("fp32",), "metrics": (Metric.LATENCY_S,)}
    return DeviceCapabilities.model_validate(values | changes)


CPU, GPU, MODEL = told("cpu"), told("gpu"), told("zigzag-own", simulated=True)
ALL = [Offered(one) for one in (CPU, GPU, MODEL)]


def owner_of(engine: Engine, name: str) -> str | None:
    with reading(engine) as session:
        return session.get_one(Device, name).owner


def begun(engine: Engine, announcer: Announcer) -> Presence:
    presence = Presence(engine, announcer)
    presence.begin(ALL, needs_all=True)
    return presence


@pytest.fixture
def lost_race(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine announces the processor just after it was found free."""

    def find_free_and_lose(engine: Engine, device: Offered, announcer: Announcer) -> None:
        await_free(engine, device, announcer)
        if device.capabilities == CPU:
            with transaction(engine) as session:
                announce(session, CPU, ELSEWHERE)

    monkeypatch.setattr(presence_module, "await_free", find_free_and_lose)


@pytest.mark.usefixtures("lost_race")
def test_a_worker_for_everything_leaves_out_what_another_takes_at_the_same_time(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    presence = Presence(engine, ONE)
    presence.begin(ALL, needs_all=False)
    assert presence.devices == ALL[1:]
    assert {name: owner_of(engine, name) for name in ("cpu", "gpu")} == {"cpu": "there:1", "gpu": "here:1"}
    assert "the device name cpu is taken" in caplog.text
    presence.repeat()
    presence.end()
    assert {name: owner_of(engine, name) for name in ("cpu", "gpu")} == {"cpu": "there:1", "gpu": None}


@pytest.mark.usefixtures("lost_race")
def test_a_worker_for_one_device_does_not_start_without_it(engine: Engine) -> None:
    with pytest.raises(DeviceTakenError, match="cpu is taken"):
        Presence(engine, ONE).begin([Offered(CPU)], needs_all=True)


def test_a_name_that_is_of_another_nature_is_not_waited_for(engine: Engine) -> None:
    with transaction(engine) as session:
        announce(session, told("zigzag-own"), ELSEWHERE)
        session.get_one(Device, "zigzag-own").seen_at -= timedelta(seconds=LIVE_FOR_S)
    presence = Presence(engine, ONE)
    presence.begin(ALL, needs_all=False)
    assert presence.devices == ALL[:2]


def test_a_worker_that_is_alone_frees_its_names(engine: Engine) -> None:
    presence = begun(engine, ONE)
    presence.repeat()
    presence.end()
    assert owner_of(engine, "cpu") is None
    begun(engine, ELSEWHERE)
    assert owner_of(engine, "cpu") == "there:1"


@pytest.mark.parametrize("last", [0, 1])
def test_a_name_is_kept_while_another_worker_of_the_machine_has_it(engine: Engine, last: int) -> None:
    """Whichever of them was the last to announce it, and whichever ends."""
    two = [begun(engine, ONE), begun(engine, TWO)]
    two[0].repeat()
    two[last].repeat()
    two[last].end()
    with pytest.raises(DeviceTakenError), transaction(engine) as session:
        announce(session, CPU, ELSEWHERE)
    two[1 - last].repeat()
    assert owner_of(engine, "cpu") == two[1 - last].announcer.owner


def test_a_name_is_freed_once_the_other_worker_has_been_away_for_long(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    presence = begun(engine, ONE)
    begun(engine, TWO)
    presence.repeat()
    now = presence_module.time.monotonic()
    monkeypatch.setattr(presence_module.time, "monotonic", lambda: now + LIVE_FOR_S)
    presence.end()
    assert owner_of(engine, "cpu") is None


def test_a_worker_reads_the_queues_of_the_models_that_not_all_have(settings: Settings) -> None:
    here = [Offered(one) for one in (CPU, MODEL, MODELS["bit-fusion-edge"].capabilities)]
    queues = _queues_of(settings, Role((QueueName.TRIALS,)), here)
    assert queues == ["trials", "control.cpu", "trials.cpu", "control.zigzag-own", "trials.zigzag-own"]
