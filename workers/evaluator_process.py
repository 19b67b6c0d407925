"""The supervising side of the evaluator: starts it, hands it jobs, and kills it when a job must not go on.

Knows nothing of searches or the database: whoever asks for a job passes `watch`, which is called several times a
second and stops the job by raising.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from workers.evaluator import FaultKind, JobName
from workers.progress import Progress, ignore_progress

EVALUATOR_COMMAND = (sys.executable, "-m", "workers.evaluator")
WATCH_INTERVAL_S = 0.1
_EXIT_WAIT_S = 1.0


class JobError(Exception):
    """A job that ended without a result."""

    def __init__(self, kind: FaultKind, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


class Evaluator:
    """One warm evaluator process. Started by the first job, and again by the first job after a death.

    Used by one thread at a time. The process is the leader of its own group, so that killing the group takes
    whatever it started with it, and it is killed by the kernel when this process dies.
    """

    def __init__(
        self,
        home: Path,
        threads: int,
        command: Sequence[str] = EVALUATOR_COMMAND,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._home = home
        self._environment = dict(environment or {})
        self._threads = threads
        self._command = list(command)
        self._process: subprocess.Popen[bytes] | None = None
        self._unread = b""
        self._requests = 0
        self.used_at = time.monotonic()

    @property
    def pid(self) -> int | None:
        """Of the live process, if there is one."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def run(
        self,
        job: JobName,
        arguments: dict[str, Any],
        *,
        watch: Callable[[], None],
        deadline_s: float,
        progress: Progress = ignore_progress,
    ) -> dict[str, Any]:
        """Do one job and return its result.

        `watch` is called at least every `WATCH_INTERVAL_S`; whatever it raises is raised here, once the process
        is dead.

        Raises:
            JobError: the job failed, the process died, or `deadline_s` passed.
        """
        done = False
        deadline = time.monotonic() + deadline_s
        try:
            self._send(job, arguments)
            while True:
                watch()
                for answer in self._answers():
                    if "progress" in answer:
                        progress(*answer["progress"])
                        continue
                    done = "result" in answer or answer["error"]["kind"] != FaultKind.OUT_OF_MEMORY
                    return self._result_of(answer)
                if time.monotonic() > deadline:
                    raise JobError(FaultKind.TIMED_OUT, f"the job did not end within {deadline_s:.0f} s")
        finally:
            self.used_at = time.monotonic()
            if not done:  # stopped in the middle, dead, or out of memory and not to be trusted
                self.kill()

    def kill(self) -> None:
        """End the process and all that it started, now; return once it is gone."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            stream.close()

    def _send(self, job: JobName, arguments: dict[str, Any]) -> None:
        if self.pid is None:
            self.kill()
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        self._requests += 1
        request = {"id": self._requests, "job": job, "home": str(self._home), "arguments": arguments}
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._death() from None

    def _start(self) -> None:
        # Threads that spin while they wait make training up to five times slower when the cores are shared.
        threads = {"OMP_NUM_THREADS": str(self._threads), "OMP_WAIT_POLICY": "PASSIVE"}
        self._unread = b""
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=threads | os.environ | self._environment,
            start_new_session=True,
        )

    def _answers(self) -> Iterator[dict[str, Any]]:
        """The answers to the running job that arrive within `WATCH_INTERVAL_S`."""
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        ready, _, _ = select.select([descriptor], [], [], WATCH_INTERVAL_S)
        if not ready:
            return
        chunk = os.read(descriptor, 1 << 16)
        if not chunk:
            raise self._death()
        *lines, self._unread = (self._unread + chunk).split(b"\n")
        for line in lines:
            answer = json.loads(line)
            if answer["id"] == self._requests:
                yield answer

    def _result_of(self, answer: dict[str, Any]) -> dict[str, Any]:
        if "error" in answer:
            raise JobError(FaultKind(answer["error"]["kind"]), answer["error"]["reason"])
        result: dict[str, Any] = answer["result"]
        return result

    def _death(self) -> JobError:
        assert self._process is not None
        try:
            status = self._process.wait(timeout=_EXIT_WAIT_S)
        except subprocess.TimeoutExpired:
            return JobError(FaultKind.DIED, "the evaluator stopped answering")
        if status < 0:
            hint = " (out of memory?)" if status == -signal.SIGKILL else ""
            return JobError(FaultKind.DIED, f"the evaluator was killed by signal {-status}{hint}")
        return JobError(FaultKind.DIED, f"the evaluator exited with status {status}")


class Evaluators:
    """The evaluators of one worker: as many as it does jobs at once, each borrowed for one job and kept warm."""

    def __init__(self, make: Callable[[], Evaluator]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._idle: list[Evaluator] = []

    @contextmanager
    def borrow(self) -> Iterator[Evaluator]:
        with self._lock:
            evaluator = self._idle.pop() if self._idle else self._make()
        try:
            yield evaluator
        finally:
            with self._lock:
                self._idle.append(evaluator)

    def end_idle(self, unused_for_s: float = 0.0) -> None:
        """End the processes that did nothing for so long; the next job starts a new one."""
        with self._lock:
            idle = [evaluator for evaluator in self._idle if time.monotonic() - evaluator.used_at >= unused_for_s]
            for evaluator in idle:
                evaluator.kill()
