"""An evaluator with made-up jobs: the real protocol and the real process, nothing to compute.

What a job does is said by the design or the arguments: a sleep, a crash, a number that is not one.
"""

import os
import signal
import sys
import time

from service.lifeline import die_with_parent
from workers.evaluator import JobName, serve, take_standard_streams


def evaluate(arguments, home, progress):
    deeds = dict(arguments["design"])
    sys.stdout.write("libraries print where they like\n")
    progress("score", 0.5, "half way")
    behave(deeds.get("channels/fault", ""))
    return {"state": "succeeded", "values": {"accuracy": 0.5}, "reason": "", "details": {"pid": os.getpid()}}


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


def not_finite(arguments, home, progress):
    return {"values": {"accuracy": float("nan")}}


if __name__ == "__main__":
    die_with_parent()
    requests, answers = take_standard_streams()
    serve(requests, answers, {JobName.EVALUATE: evaluate, JobName.CONFIRM: not_finite})
