"""A device under an operator's name: what may be one, what it does, and the worker that is refused it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine

from service.db import transaction
from service.devices.actions import Announcer, announce
from service.models import Device, utc_now
from workers.device_name import DeviceName, environment_for
from workers.hardware.named import DeviceNameError, NamedDevice, parse_device
from workers.hardware.onnxruntime_cpu import OnnxRuntimeCpu
from workers.hardware.testing import DeviceContract

ESPALIER = str(Path(sys.executable).with_name("espalier"))


class TestNamedDevice(DeviceContract):
    def make_device(self) -> NamedDevice:
        return NamedDevice("lab", "local-cpu")


def test_all_but_the_name_is_the_devices_own():
    named = NamedDevice("lab epyc.1", "local-cpu").capabilities()
    assert named.name == "lab epyc.1"
    assert named.model_copy(update={"name": "local-cpu"}) == OnnxRuntimeCpu().capabilities()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lab=local-cpu", DeviceName("lab", "local-cpu")),
        ("local-cpu", DeviceName("local-cpu", "local-cpu")),
        ("a b.c=local-cpu", DeviceName("a b.c", "local-cpu")),
    ],
)
def test_what_names_a_device(text: str, expected: DeviceName):
    assert parse_device(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is no name"),
        ("=local-cpu", "is no name"),
        ("../x=local-cpu", "is no name"),
        ("a/b=local-cpu", "is no name"),
        ("a,b=local-cpu", "is no name"),
        ("x" * 101 + "=local-cpu", "is no name"),
        ("lab\n=local-cpu", "is no name"),
        ("lab", "no device 'lab'; say which it is of local-cpu.*: lab=KIND"),
        ("lab=", "no device 'lab'"),
        ("lab=toaster", "no device 'toaster'"),
        ("lab=local-cpu=x", "no device 'local-cpu=x'"),
    ],
)
def test_what_names_none_is_refused(text: str, reason: str):
    with pytest.raises(DeviceNameError, match=reason):
        parse_device(text)


@pytest.mark.parametrize(
    ("named", "has", "lacks"),
    [(DeviceName("lab", "local-cpu"), "lab", "local-cpu"), (None, "local-cpu", "lab")],
    ids=["named", "all"],
)
def test_an_evaluator_has_the_device_that_its_worker_is_for(named: DeviceName | None, has: str, lacks: str):
    code = (
        "from search_spaces.extensions import NotInstalledError, look_up\n"
        "from workers.hardware.named import offered_devices\n"
        f"print(look_up('device', {has!r}, offered_devices())().capabilities().name)\n"
        "try:\n"
        f"    look_up('device', {lacks!r}, offered_devices())\n"
        "except NotInstalledError as error:\n"
        "    print(error)\n"
    )
    environment = os.environ | {"ESPALIER_DEVICE": "left=over"} | environment_for(named)
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    first, second = said.stdout.splitlines()
    assert first == has
    assert second.startswith(f"this worker has no device {lacks!r}; it has {has}")


@contextmanager
def living_elsewhere(engine: Engine) -> Iterator[None]:
    """A worker on another machine that has announced `lab`, and goes on doing so."""
    with transaction(engine) as session:
        capabilities = OnnxRuntimeCpu().capabilities().model_copy(update={"name": "lab"})
        announce(session, capabilities, Announcer("elsewhere:1", "elsewhere"), "local-cpu")
    is_over = threading.Event()

    def live() -> None:
        while not is_over.wait(0.5):
            with transaction(engine) as session:
                session.get_one(Device, "lab").seen_at = utc_now()

    thread = threading.Thread(target=live)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def test_a_worker_for_a_device_of_another_machine_does_not_start(engine: Engine, settings):
    with living_elsewhere(engine):
        refused = subprocess.run(
            [ESPALIER, "worker", "--device", "lab=local-cpu"], capture_output=True, text=True, timeout=60, check=False
        )
    assert refused.returncode == 1
    assert "the device name lab is taken: elsewhere:1 has announced it, and lives" in refused.stderr
    assert "espalier worker --device NAME=local-cpu" in refused.stderr


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--device", "lab=toaster"], "has no device 'toaster'"),
        (["--device", "lab=local-cpu", "--queues", "trials"], "give --device or --queues"),
        (["--queues", "nowhere"], "'nowhere' is not a valid QueueName"),
    ],
)
def test_a_worker_that_cannot_be_does_not_start(options: list[str], reason: str, tmp_path: Path):
    environment = os.environ | {"ESPALIER_HOME": str(tmp_path)}
    refused = subprocess.run(
        [ESPALIER, "worker", *options], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert refused.returncode == 2
    assert reason in " ".join(refused.stderr.replace("│", " ").split())
