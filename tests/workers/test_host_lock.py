"""The host lock between real processes, one of which is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from workers.host_lock import HostLockError, measuring, training

MEASURE = "with host_lock.measuring(): say('in'); wait()"
TRAIN = "with host_lock.training() as turn:\n    say('in')\n    while not told(): turn.yield_(); time.sleep(0.001)"
TRAIN_DEAF = "with host_lock.training(): say('in'); wait()"
PRELUDE = """
import select, sys, time
from workers import host_lock
def say(word): sys.stdout.write(word + "\\n"); sys.stdout.flush()
def wait(): sys.stdin.readline()
def told(): return bool(select.select([sys.stdin], [], [], 0)[0])
"""
PATIENCE_S = 20.0


@pytest.fixture(autouse=True)
def lock_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Locks of this test alone, here and in child processes."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


@contextmanager
def process(code: str) -> Iterator[subprocess.Popen]:
    child = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def wait_until_in(child: subprocess.Popen) -> None:
    assert child.stdout.readline() == "in\n"


class Attempt(threading.Thread):
    """Takes a lock in a thread of its own, so that a test can see that it has to wait."""

    def __init__(self, lock) -> None:
        super().__init__(daemon=True)
        self.lock, self.inside, self.leave = lock, threading.Event(), threading.Event()
        self.start()

    def run(self) -> None:
        with self.lock():
            self.inside.set()
            self.leave.wait(PATIENCE_S)

    def finish(self) -> None:
        self.leave.set()
        self.join(PATIENCE_S)
        assert not self.is_alive()


def test_two_measurements_follow_each_other():
    with process(MEASURE) as child:
        wait_until_in(child)
        attempt = Attempt(measuring)
        assert not attempt.inside.wait(0.2)
        child.communicate("\n")
        assert attempt.inside.wait(PATIENCE_S)
        attempt.finish()


def test_a_killed_measurer_leaves_no_lock_behind():
    with process(MEASURE) as child:
        wait_until_in(child)
        attempt = Attempt(measuring)
        assert not attempt.inside.wait(0.1)
        os.kill(child.pid, signal.SIGKILL)
        assert attempt.inside.wait(PATIENCE_S)
        attempt.finish()


def test_a_killed_trainer_leaves_no_lock_behind():
    with process(TRAIN_DEAF) as child:
        wait_until_in(child)
        attempt = Attempt(measuring)
        assert not attempt.inside.wait(0.1)
        os.kill(child.pid, signal.SIGKILL)
        assert attempt.inside.wait(PATIENCE_S)
        attempt.finish()


def test_training_goes_on_beside_training():
    with process(TRAIN) as first, process(TRAIN) as second:
        wait_until_in(first)
        wait_until_in(second)
        with training() as turn:
            turn.yield_()


def test_a_measurement_gets_in_between_the_steps_of_two_trainers_and_keeps_them_out():
    with process(TRAIN) as first, process(TRAIN) as second:
        wait_until_in(first)
        wait_until_in(second)
        with measuring():
            late = Attempt(training)
            assert not late.inside.wait(0.2)
        assert late.inside.wait(PATIENCE_S)
        late.finish()


def test_whoever_yields_comes_back_only_after_the_measurement():
    order: list[str] = []
    with training() as turn:
        measurer = threading.Thread(target=lambda: _measure_slowly(order))
        measurer.start()
        deadline = time.monotonic() + PATIENCE_S
        while not order and time.monotonic() < deadline:
            turn.yield_()
        order.append("training again")
        measurer.join(PATIENCE_S)
    assert order == ["measuring", "measured", "training again"]


def _measure_slowly(order: list[str]) -> None:
    with measuring():
        order.append("measuring")
        time.sleep(0.1)
        order.append("measured")


def test_yielding_to_nobody_costs_microseconds():
    with training() as turn:
        start = time.perf_counter()
        for _ in range(1000):
            turn.yield_()
        assert time.perf_counter() - start < 1.0


def test_an_error_inside_frees_the_lock():
    with pytest.raises(KeyError), measuring():
        raise KeyError
    with measuring():
        assert True


def test_a_link_is_not_followed(lock_folder):
    target = lock_folder / "precious"
    target.write_text("kept")
    (lock_folder / f"espalier-{os.getuid()}-gate.lock").symlink_to(target)
    with pytest.raises(HostLockError, match="cannot open"), measuring():
        pytest.fail("the lock was taken through a link")
    assert target.read_text() == "kept"


def test_something_that_is_no_file_is_refused(lock_folder):
    (lock_folder / f"espalier-{os.getuid()}-room.lock").mkdir()
    with pytest.raises(HostLockError, match="cannot open"), training():
        pytest.fail("a folder was locked")


def test_lock_files_are_private(lock_folder):
    with measuring():
        modes = [path.stat().st_mode & 0o777 for path in lock_folder.glob("espalier-*.lock")]
    assert modes == [0o600, 0o600]
