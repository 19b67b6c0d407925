"""One worker process: a Celery worker with threads, its evaluators, and what it repeats on the side.

Knows how a worker is put together and taken down, not what its tasks do.
"""

from __future__ import annotations

import logging
import os
import platform
import signal
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from celery import Celery, signals
from celery.exceptions import SecurityWarning

from search_spaces.accelerators.models import is_everywhere
from service.config import Settings
from service.cost_models.queries import grown_conditions
from service.db import make_engine, reading, upgrade
from service.devices.actions import DeviceTakenError, this_process
from service.leases import owner_name
from service.queue import QueueName, device_queue, get_celery, queue_called
from service.uploads import remove_unneeded
from workers.announce import (
    ANNOUNCE_EVERY_S,
    Offered,
    Offers,
    announce_offers,
    local_capabilities,
    offered,
    sampler_offers,
    trial_offers,
)
from workers.device_name import DeviceName, environment_for
from workers.evaluator_process import EVALUATOR_COMMAND, Evaluator, Evaluators
from workers.presence import SIGN_OF_LIFE_EVERY_S, Presence
from workers.reaper import Reaper
from workers.tasks import register_tasks
from workers.workplace import Workplace

_log = logging.getLogger(__name__)

EVALUATOR_IDLE_S = 120.0
TIDY_EVERY_S = 3600.0
REFIT_EVERY_S = 60.0


@dataclass(frozen=True)
class Role:
    """What a worker works on.

    Attributes:
        queues: of all searches; none where it is for one device.
        named: the device that it is for.
    """

    queues: tuple[QueueName, ...]
    named: DeviceName | None = None


def run_worker(
    settings: Settings,
    role: Role,
    concurrency: int,
    evaluator_command: Sequence[str] = EVALUATOR_COMMAND,
) -> int:
    """Work until SIGTERM or SIGINT, then put back what is not done. Returns the exit status."""
    upgrade(settings.resolved_database_url)
    workplace = make_workplace(settings, concurrency, evaluator_command, role.named)
    presence, offers = Presence(workplace.engine, this_process()), _offers_of(role)
    announce_offers(workplace.engine, offers)  # before its devices: whoever sees those may name all else that is here
    try:
        _announce_first(presence, role)
    except DeviceTakenError as error:
        _log.error("%s", error)
        return 1
    celery = get_celery()
    register_tasks(celery, workplace)
    signals.worker_shutting_down.connect(lambda **_: workplace.stopping.set(), weak=False)
    worker = _make_consumer(celery, role, _queues_of(settings, role, presence.devices), concurrency)
    is_taken = threading.Event()
    jobs = _on_the_side(settings, workplace, role)
    jobs.append((ANNOUNCE_EVERY_S, lambda: announce_offers(workplace.engine, offers)))
    if presence.devices:
        jobs.append((SIGN_OF_LIFE_EVERY_S, lambda: _repeat_presence(presence, is_taken)))
    signal.signal(signal.SIGTERM, _end_early)
    try:
        with suppress(SystemExit):
            for every_s, what in jobs:
                threading.Thread(target=_repeat, args=(workplace.stopping, every_s, what), daemon=True).start()
            worker.start()
    finally:
        workplace.stopping.set()
        workplace.evaluators.end_idle()
        presence.end()
        workplace.engine.dispose()
    return 1 if is_taken.is_set() else int(worker.exitcode or 0)


def _end_early(*_: object) -> None:
    """Until Celery has its own handlers, SIGTERM would end this process at once, and its devices would stay taken."""
    raise SystemExit


def _make_consumer(celery: Celery, role: Role, queues: Sequence[str], concurrency: int) -> Any:
    """Celery's worker; it connects when it is started."""
    # Said of root and pickle; only JSON is accepted here, and containers have no other user.
    warnings.simplefilter("ignore", SecurityWarning)
    for queue in queues:
        celery.amqp.queues.add(queue_called(queue))
    return celery.Worker(
        pool="threads",
        concurrency=concurrency,
        queues=queues,
        loglevel="WARNING",
        quiet=True,
        without_heartbeat=True,
        without_gossip=True,
        without_mingle=True,
        hostname=f"{'-'.join(role.queues) or 'device'}-{os.getpid()}@{platform.node()}",
    )


def make_workplace(
    settings: Settings, concurrency: int, evaluator_command: Sequence[str], named: DeviceName | None = None
) -> Workplace:
    home = settings.home.absolute()
    threads = max(1, _cores() // concurrency)
    environment = environment_for(named)
    return Workplace(
        engine=make_engine(settings.resolved_database_url),
        home=home,
        owner=owner_name(os.getpid()),
        evaluators=Evaluators(lambda: Evaluator(home, threads, evaluator_command, environment)),
    )


def _announce_first(presence: Presence, role: Role) -> None:
    """Find out what this worker has and may announce, and do so, before any work for it can come.

    A worker for one device is of no use without it; another one leaves out what is taken, and does all else.

    Raises:
        DeviceTakenError: the device that it is for is another's.
    """
    if role.named is not None or QueueName.TRIALS in role.queues:
        presence.begin(offered(role.named), needs_all=role.named is not None)


def _queues_of(settings: Settings, role: Role, devices: Sequence[Offered]) -> list[str]:
    """Those of all searches, and those of the devices that are here."""
    kinds, here = tuple(QueueName), [device.capabilities for device in devices]
    if settings.is_broker_embedded and role.queues == (QueueName.CONTROL,):
        # Then all workers are on one machine, and an export need not wait for a trial.
        kinds, here = role.queues, local_capabilities()
    own = [device_queue(kind, device.name) for device in here if not is_everywhere(device) for kind in kinds]
    return [*map(str, role.queues), *own]


def _repeat_presence(presence: Presence, is_taken: threading.Event) -> None:
    """Give a sign of life. This worker must end once a name is another's: that one's trials would come here."""
    try:
        presence.repeat()
    except DeviceTakenError as error:
        _log.error("%s; this worker ends", error)
        is_taken.set()
        os.kill(os.getpid(), signal.SIGTERM)


def _on_the_side(settings: Settings, workplace: Workplace, role: Role) -> list[tuple[float, Callable[[], None]]]:
    """What is repeated while the worker works, and how often, in seconds."""
    jobs: list[tuple[float, Callable[[], None]]] = []
    if QueueName.CONTROL in role.queues:
        interval_s, patience_s = (1.0, 3.0) if settings.is_broker_embedded else (5.0, 15.0)
        jobs.append((interval_s, Reaper(workplace.engine, patience_s).reap))
        jobs.append((TIDY_EVERY_S, lambda: _tidy(workplace, settings)))
        jobs.append((REFIT_EVERY_S, lambda: _refit(workplace)))
        # Exports are rare, and an evaluator takes half a gigabyte.
        jobs.append((EVALUATOR_IDLE_S / 4, lambda: workplace.evaluators.end_idle(EVALUATOR_IDLE_S)))
    return jobs


def _offers_of(role: Role) -> Offers:
    """What was installed here for what this worker works on."""
    samplers = sampler_offers() if QueueName.CONTROL in role.queues else []
    return [*samplers, *(trial_offers() if QueueName.TRIALS in role.queues else [])]


def _refit(workplace: Workplace) -> None:
    """Fit those cost models again whose measurements have grown."""
    with reading(workplace.engine) as session:
        grown = grown_conditions(session)
    if grown:
        from workers.cost_models import fit_model  # loads scipy, which is seldom needed here

        for conditions_id in grown:
            try:
                fit_model(workplace.engine, conditions_id)
            except ValueError:  # of one device; the others are fitted all the same
                _log.exception("cannot fit the cost model of conditions %s", conditions_id)


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
