"""A device under an operator's name: what may be one, what it does, and the worker that is refused it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine

from service.db import make_engine, reading, transaction
from service.devices.actions import Announcer, announce
from service.leases import owner_name
from service.models import Device
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
        ("lab=zigzag-tpu-like", DeviceName("lab", "zigzag-tpu-like")),
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
        ("lab=roofline-t4", "every worker has it"),
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
    assert second.startswith(f"this worker has no device {lacks!r}; it has ")
    assert has in second


@pytest.fixture
def home(tmp_path: Path, sqlite_template: Path) -> Path:
    """One with a database of its own, which the broker of files belongs to."""
    shutil.copy(sqlite_template, tmp_path / "espalier.db")
    return tmp_path


@pytest.fixture
def database(home: Path) -> Iterator[Engine]:
    engine = make_engine(f"sqlite:///{home / 'espalier.db'}")
    yield engine
    engine.dispose()


@contextmanager
def living_elsewhere(engine: Engine, name: str) -> Iterator[None]:
    """A worker on another machine takes a name, and goes on giving signs of life."""
    capabilities = OnnxRuntimeCpu().capabilities().model_copy(update={"name": name})
    is_over = threading.Event()

    def live() -> None:
        while not is_over.wait(0.5):
            with transaction(engine) as session:
                announce(session, capabilities, Announcer("elsewhere:1", "elsewhere"), "local-cpu")

    with transaction(engine) as session:
        session.query(Device).delete()
        announce(session, capabilities, Announcer("elsewhere:1", "elsewhere"), "local-cpu")
    thread = threading.Thread(target=live)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


@contextmanager
def running_worker(home: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    environment = os.environ | {"ESPALIER_HOME": str(home)}
    worker = subprocess.Popen([ESPALIER, "worker", *options], env=environment, stderr=subprocess.PIPE, text=True)
    with worker:
        try:
            yield worker
        finally:
            if worker.poll() is None:
                worker.kill()


def await_owner(engine: Engine, name: str, pid: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        with reading(engine) as session:
            device = session.get(Device, name)
        if device is not None and device.owner == owner_name(pid):
            return
        assert time.monotonic() < deadline, device
        time.sleep(0.1)


TAKEN = "is taken: elsewhere:1 has announced it, and lives"


def test_a_worker_for_a_device_of_another_machine_does_not_start(home: Path, database: Engine):
    with living_elsewhere(database, "lab"), running_worker(home, "--device", "lab=local-cpu") as worker:
        _, said = worker.communicate(timeout=60)
    assert worker.returncode == 1
    assert f"the device name lab {TAKEN}" in said
    assert "espalier worker --device NAME=local-cpu" in said


def test_a_worker_whose_device_becomes_another_machines_ends(home: Path, database: Engine):
    with running_worker(home, "--device", "lab=local-cpu") as worker:
        await_owner(database, "lab", worker.pid)
        with living_elsewhere(database, "lab"):
            _, said = worker.communicate(timeout=60)
    assert worker.returncode == 1
    assert TAKEN in said
    assert "this worker ends" in said


def test_a_worker_for_everything_leaves_out_what_is_taken(home: Path, database: Engine):
    with living_elsewhere(database, "local-cpu"), running_worker(home, "--queues", "trials") as worker:
        assert worker.stderr is not None
        said = next(line for line in worker.stderr if "taken" in line)
        time.sleep(1)
        assert worker.poll() is None
    assert said.rstrip().endswith("this worker leaves it out")


def test_a_worker_frees_its_name_when_it_is_told_to_stop(home: Path, database: Engine):
    with running_worker(home, "--device", "lab=local-cpu") as worker:
        await_owner(database, "lab", worker.pid)
        time.sleep(1)
        worker.terminate()
        worker.communicate(timeout=60)
    assert worker.returncode == 0
    with reading(database) as session:
        assert session.get_one(Device, "lab").owner is None


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--device", "lab=toaster"], "has no device 'toaster'"),
        (["--device", "lab=local-cpu", "--queues", "trials"], "give --device or --queues"),
        (["--queues", "nowhere"], "'nowhere' is not a valid QueueName"),
    ],
)
def test_a_worker_that_cannot_be_does_not_start(options: list[str], reason: str, tmp_path: Path):
    with running_worker(tmp_path, *options) as refused:
        _, said = refused.communicate(timeout=60)
    assert refused.returncode == 2
    assert reason in " ".join(said.replace("│", " ").split())


def test_a_simulated_device_is_not_profiled(home: Path):
    command = [ESPALIER, "device", "profile", "lab=zigzag-tpu-like", "--network", "mobilenet_v1"]
    environment = os.environ | {"ESPALIER_HOME": str(home)}
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert refused.returncode == 2
    assert "zigzag-tpu-like is simulated: its figures are computed" in refused.stdout
