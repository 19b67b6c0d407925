"""An evaluator with made-up jobs: the real protocol and the real process, nothing to compute.

What a job does is said by the design: a sleep, a crash, a number that is not one. A real design says so by its
digest: see `fault_of`.
"""

import hashlib
import json
import os
import signal
import sys
import time

from service.lifeline import die_with_parent
from workers.evaluator import JobName, serve, take_standard_streams

FAULT = "channels/fault"


def fault_of(design):
    """One in six designs kills the process, and one in six has no finite loss."""
    if FAULT in design:
        return design[FAULT]
    digest = hashlib.sha256(json.dumps(design, sort_keys=True).encode()).digest()
    return {0: "kill", 1: "nan"}.get(digest[0] % 6, "")


def evaluate(arguments, home, progress):
    sys.stdout.write("libraries print where they like\n")
    progress("score", 0.5, "half way")
    behave(fault_of(arguments["design"]))
    return {"state": "succeeded", "values": dict(VALUES), "reason": "", "details": {"pid": os.getpid()}, "sources": {}}


def behave(deed):
    if deed == "sleep":
        time.sleep(600)
    elif deed == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif deed == "exit":
        os._exit(3)
    elif deed == "memory":
        raise MemoryError("could not have 8 TB")
    elif deed == "nan":
        raise FloatingPointError("loss is NaN\nafter 3 steps")
    elif deed == "raise":
        raise KeyError("nothing there")
    elif deed == "child":
        if os.fork() == 0:
            time.sleep(600)
        time.sleep(600)


def prepare(arguments, home, progress):
    return {"base_key": "b" * 64, "accuracy": 0.9, "budget_bases": {}}


def not_finite(arguments, home, progress):
    return {"values": {"accuracy": float("nan")}}


VALUES = {"accuracy": 0.5, "latency_s": 0.001}
JOBS = {JobName.PREPARE: prepare, JobName.EVALUATE: evaluate, JobName.CONFIRM: not_finite}

if __name__ == "__main__":
    die_with_parent()
    requests, answers = take_standard_streams()
    serve(requests, answers, JOBS)
