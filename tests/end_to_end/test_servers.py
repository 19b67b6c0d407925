"""The same code on PostgreSQL and Redis, with two workers, one of which is killed; and designs that kill evaluators."""

import os
import shlex
import signal
import sys
import time
from pathlib import Path

import psutil

from service.leases import MAX_ATTEMPTS
from tests.end_to_end.running import (
    ESPALIER,
    Service,
    assert_complete,
    digits_spec,
    running_program,
    wait_for,
)
from tests.workers.stub_evaluator import fault_of

STUB = shlex.join([sys.executable, str(Path(__file__).parent.parent / "workers" / "stub_evaluator.py")])


def worker(*options: str) -> list[str]:
    return [ESPALIER, "worker", "--concurrency", "2", *options]


def test_a_search_survives_the_death_of_one_of_two_workers(served, tmp_path):
    service, environment, command = served
    with (
        running_program(worker(), environment, tmp_path / "one.log") as one,
        running_program(worker(), environment, tmp_path / "two.log"),
        running_program(command, environment, tmp_path / "service.log"),
    ):
        service.await_ready()
        search_id = service.submit(digits_spec(budget={"trials": 6, "concurrency": 2}))
        wait_for(
            lambda: evaluates(one.pid) and running(service, search_id), 120, lambda: (tmp_path / "one.log").read_text()
        )
        os.kill(one.pid, signal.SIGKILL)
        one.wait()
        search = service.await_end(search_id, 180)
        assert search["state"] == "succeeded", search
        assert_complete(service, search_id, budget=6)
        assert all(trial["state"] == "succeeded" for trial in service.trials(search_id))


def test_designs_that_kill_evaluators_or_give_nan_fail_alone(served, tmp_path):
    service, environment, command = served
    with (
        running_program(worker("--evaluator", STUB), environment, tmp_path / "worker.log"),
        running_program(command, environment, tmp_path / "service.log"),
    ):
        service.await_ready()
        began = time.monotonic()
        search_id = service.submit(digits_spec(budget={"trials": 20, "concurrency": 2}))
        search = service.await_end(search_id)
        assert search["state"] == "succeeded", search
        assert_complete(service, search_id, budget=20)
        found = {"": 0, "kill": 0, "nan": 0}
        for trial in service.trials(search_id):
            fault = fault_of(trial["design"])
            found[fault] += 1
            expected = {
                "": ("succeeded", "", 1),
                "kill": ("failed", "the evaluator was killed by signal 9 (out of memory?)", MAX_ATTEMPTS),
                "nan": ("failed", "FloatingPointError: loss is NaN after 3 steps", 1),
            }[fault]
            assert (trial["state"], trial["reason"], trial["attempt"]) == expected
        assert min(found.values()) >= 1, found
        assert time.monotonic() - began < 60


def evaluates(pid: int) -> bool:
    return any("workers.evaluator" in child.cmdline() for child in psutil.Process(pid).children())


def running(service: Service, search_id: str) -> bool:
    return any(trial["state"] == "running" for trial in service.trials(search_id))
