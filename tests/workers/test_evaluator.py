"""The evaluator process through its real pipes: results, faults, deaths, and how fast it can be stopped."""

import io
import json
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from workers.evaluator import FaultKind, JobName, classify, serve
from workers.evaluator_process import Evaluator, Evaluators, JobError

STUB = (sys.executable, str(Path(__file__).with_name("stub_evaluator.py")))


@pytest.fixture
def evaluator(tmp_path):
    evaluator = Evaluator(tmp_path, threads=1, command=STUB)
    yield evaluator
    evaluator.kill()


def evaluate(evaluator, fault="", watch=lambda: None, deadline_s=30.0, **options):
    arguments = {"design": {"channels/fault": fault}}
    return evaluator.run(JobName.EVALUATE, arguments, watch=watch, deadline_s=deadline_s, **options)


def test_the_process_stays_warm_and_tells_progress(evaluator):
    heard = []
    first = evaluate(evaluator, progress=lambda *line: heard.append(line))
    second = evaluate(evaluator)
    assert first["details"]["pid"] == second["details"]["pid"] == evaluator.pid
    assert heard == [("score", 0.5, "half way")]


@pytest.mark.parametrize(
    ("fault", "kind", "reason", "survives"),
    [
        ("memory", FaultKind.OUT_OF_MEMORY, "MemoryError: could not have 8 TB", False),
        ("nan", FaultKind.NOT_FINITE, "FloatingPointError: loss is NaN after 3 steps", True),
        ("raise", FaultKind.CRASHED, "KeyError: 'nothing there'", True),
        ("kill", FaultKind.DIED, "the evaluator was killed by signal 9 (out of memory?)", False),
        ("exit", FaultKind.DIED, "the evaluator exited with status 3", False),
    ],
)
def test_a_fault_costs_one_job(evaluator, fault, kind, reason, survives):
    with pytest.raises(JobError) as caught:
        evaluate(evaluator, fault)
    assert (caught.value.kind, caught.value.reason) == (kind, reason)
    assert (evaluator.pid is not None) == survives
    assert evaluate(evaluator)["state"] == "succeeded"


def test_a_result_that_is_not_finite_is_a_fault(evaluator):
    with pytest.raises(JobError) as caught:
        evaluator.run(JobName.CONFIRM, {}, watch=lambda: None, deadline_s=30.0)
    assert caught.value.kind == FaultKind.NOT_FINITE
    assert "values.accuracy is nan" in caught.value.reason


def test_the_deadline_ends_the_job(evaluator):
    with pytest.raises(JobError) as caught:
        evaluate(evaluator, "sleep", deadline_s=1.0)
    assert caught.value.kind == FaultKind.TIMED_OUT
    assert evaluator.pid is None


def test_stopping_kills_the_whole_group_within_a_second(evaluator):
    class StoppedError(Exception):
        pass

    seen = []

    def watch():
        children = psutil.Process(evaluator.pid).children()
        if children:
            seen.extend([evaluator.pid, children[0].pid])
            raise StoppedError

    with pytest.raises(StoppedError):
        evaluate(evaluator, "child", watch)
    stopped = time.monotonic()
    while any(_is_alive(pid) for pid in seen):
        assert time.monotonic() - stopped < 1.0
        time.sleep(0.01)
    assert len(seen) == 2


def test_the_evaluator_dies_with_its_parent(tmp_path):
    script = (
        "import os, signal, sys; from pathlib import Path; from workers.evaluator_process import Evaluator\n"
        "from workers.evaluator import JobName\n"
        f"evaluator = Evaluator(Path('.'), 1, {STUB!r})\n"
        "evaluator.run(JobName.EVALUATE, {'design': {}}, watch=lambda: None, deadline_s=30)\n"
        "print(evaluator.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with psutil.Popen([sys.executable, "-c", script], stdout=-1, cwd=tmp_path) as parent:
        pid = int(parent.stdout.readline())
        assert parent.wait() == -signal.SIGKILL
    deadline = time.monotonic() + 5
    while _is_alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_evaluators_are_lent_to_one_at_a_time_and_ended_when_idle(tmp_path):
    evaluators = Evaluators(lambda: Evaluator(tmp_path, threads=1, command=STUB))
    with evaluators.borrow() as first, evaluators.borrow() as second:
        assert first is not second
        evaluate(first)
    with evaluators.borrow() as third:
        assert third in (first, second)
    pid = first.pid
    evaluators.end_idle(unused_for_s=60.0)
    assert first.pid == pid
    evaluators.end_idle()
    assert first.pid is None
    assert not psutil.pid_exists(pid)


def test_a_result_that_is_not_json_is_a_fault_of_the_job(tmp_path):
    answers = io.StringIO()
    request = json.dumps({"id": 7, "job": "evaluate", "home": str(tmp_path), "arguments": {}})
    serve([request], answers, {JobName.EVALUATE: lambda arguments, home, progress: {"values": object()}})
    assert json.loads(answers.getvalue()) == {
        "id": 7,
        "error": {"kind": "crashed", "reason": "TypeError: object is not JSON"},
    }


def test_allocators_that_fail_count_as_out_of_memory():
    text = "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
    assert classify(RuntimeError(text)) == FaultKind.OUT_OF_MEMORY
    assert classify(RuntimeError("shapes differ")) == FaultKind.CRASHED


def _is_alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
