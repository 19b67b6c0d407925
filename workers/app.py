"""One worker process: a Celery worker with threads, its evaluators, and what it repeats on the side.

Knows how a worker is put together and taken down, not what its tasks do.
"""

from __future__ import annotations

import logging
import os
import platform
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from celery import signals
from celery.exceptions import SecurityWarning

from service.config import Settings
from service.db import make_engine, reading, upgrade
from service.leases import owner_name
from service.queue import QueueName, get_celery
from service.uploads import remove_unneeded
from workers.announce import (
    ANNOUNCE_EVERY_S,
    announce_devices,
    announce_offers,
    local_capabilities,
    sampler_offers,
    trial_offers,
)
from workers.evaluator_process import EVALUATOR_COMMAND, Evaluator, Evaluators
from workers.reaper import Reaper
from workers.tasks import register_tasks
from workers.workplace import Workplace

_log = logging.getLogger(__name__)

EVALUATOR_IDLE_S = 120.0
TIDY_EVERY_S = 3600.0


def run_worker(
    settings: Settings,
    queues: Sequence[QueueName],
    concurrency: int,
    evaluator_command: Sequence[str] = EVALUATOR_COMMAND,
) -> int:
    """Work until SIGTERM or SIGINT, then put back what is not done. Returns the exit status."""
    upgrade(settings.resolved_database_url)
    workplace = make_workplace(settings, concurrency, evaluator_command)
    celery = get_celery()
    register_tasks(celery, workplace)
    signals.worker_shutting_down.connect(lambda **_: workplace.stopping.set(), weak=False)
    threads = [
        threading.Thread(target=_repeat, args=(workplace.stopping, every_s, what), daemon=True)
        for every_s, what in _on_the_side(settings, workplace, queues)
    ]
    # Said of root and pickle; only JSON is accepted here, and containers have no other user.
    warnings.simplefilter("ignore", SecurityWarning)
    worker = celery.Worker(
        pool="threads",
        concurrency=concurrency,
        queues=[str(queue) for queue in queues],
        loglevel="WARNING",
        quiet=True,
        without_heartbeat=True,
        without_gossip=True,
        without_mingle=True,
        hostname=f"{'-'.join(queues)}-{os.getpid()}@{platform.node()}",
    )
    for thread in threads:
        thread.start()
    try:
        worker.start()
    finally:
        workplace.stopping.set()
        workplace.evaluators.end_idle()
        workplace.engine.dispose()
    return int(worker.exitcode or 0)


def make_workplace(settings: Settings, concurrency: int, evaluator_command: Sequence[str]) -> Workplace:
    home = settings.home.absolute()
    threads = max(1, _cores() // concurrency)
    return Workplace(
        engine=make_engine(settings.resolved_database_url),
        home=home,
        owner=owner_name(os.getpid()),
        evaluators=Evaluators(lambda: Evaluator(home, threads, evaluator_command)),
    )


def _on_the_side(
    settings: Settings, workplace: Workplace, queues: Sequence[QueueName]
) -> list[tuple[float, Callable[[], None]]]:
    """What is repeated while the worker works, and how often, in seconds."""
    jobs: list[tuple[float, Callable[[], None]]] = []
    if QueueName.CONTROL in queues:
        interval_s, patience_s = (1.0, 3.0) if settings.is_broker_embedded else (5.0, 15.0)
        jobs.append((interval_s, Reaper(workplace.engine, patience_s).reap))
        samplers = sampler_offers()
        jobs.append((ANNOUNCE_EVERY_S, lambda: announce_offers(workplace.engine, samplers)))
        jobs.append((TIDY_EVERY_S, lambda: _tidy(workplace, settings)))
        # Exports are rare, and an evaluator takes half a gigabyte.
        jobs.append((EVALUATOR_IDLE_S / 4, lambda: workplace.evaluators.end_idle(EVALUATOR_IDLE_S)))
    if QueueName.TRIALS in queues:
        devices, offers = local_capabilities(), trial_offers()
        jobs.append((ANNOUNCE_EVERY_S, lambda: announce_offers(workplace.engine, offers)))
        jobs.append((ANNOUNCE_EVERY_S, lambda: announce_devices(workplace.engine, devices)))
    return jobs


def _tidy(workplace: Workplace, settings: Settings) -> None:
    with reading(workplace.engine) as session:
        remove_unneeded(session, settings.uploads_folder, older_than_s=TIDY_EVERY_S)


def _repeat(stopping: threading.Event, every_s: float, what: Callable[[], Any]) -> None:
    """A round that fails is tried again at the next: the database may be away for a while."""
    while True:
        try:
            what()
        except Exception:
            _log.exception("a repeated job failed")
        if stopping.wait(every_s):
            return


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
