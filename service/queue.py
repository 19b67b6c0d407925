"""Messages to the workers: task names, queues, and sending after the commit. Only ids cross the queue.

A message is a hint that a row waits. Losing one, or all of them, loses nothing: the reaper sends it again.

What a search measures has to be measured where its device is: such messages go to queues of the device's own, that
only the workers read which have it. A closed form is wherever a worker is; other models need a package or a folder.
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from search_spaces.spec import SearchSpec
from service.config import Settings, get_settings
from service.db import after_commit
from service.models import (
    Claimable,
    Device,
    Export,
    Finalist,
    ImportedNetwork,
    OwnDataset,
    Preparation,
    Refinement,
    Search,
    SearchWork,
    Trial,
    utc_now,
)

if TYPE_CHECKING:
    from celery import Celery
    from kombu.entity import Queue

VISIBILITY_TIMEOUT_S = 120
"""After this Redis delivers an unfinished message again. The second delivery finds the row leased, and ends."""


class TaskName(StrEnum):
    PREPARE = "espalier.prepare"  # id of a Preparation
    PLAN = "espalier.plan"  # id of a Search
    RUN = "espalier.run"  # id of a Trial
    CONFIRM = "espalier.confirm"  # id of a Finalist
    EXPORT = "espalier.export"  # id of an Export
    REFINE = "espalier.refine"  # id of a Refinement
    IMPORT = "espalier.import"  # id of an ImportedNetwork
    INDEX = "espalier.index"  # id of an OwnDataset


class QueueName(StrEnum):
    """Two queues, so that a long trial never keeps planning and exporting waiting; each device has its own two."""

    CONTROL = "control"
    TRIALS = "trials"


QUEUE_OF = {
    TaskName.PREPARE: QueueName.TRIALS,
    TaskName.PLAN: QueueName.CONTROL,
    TaskName.RUN: QueueName.TRIALS,
    TaskName.CONFIRM: QueueName.TRIALS,
    TaskName.EXPORT: QueueName.CONTROL,
    TaskName.REFINE: QueueName.TRIALS,
    TaskName.IMPORT: QueueName.TRIALS,
    TaskName.INDEX: QueueName.TRIALS,
}
MODEL_OF: dict[TaskName, type[Claimable]] = {
    TaskName.PREPARE: Preparation,
    TaskName.RUN: Trial,
    TaskName.CONFIRM: Finalist,
    TaskName.EXPORT: Export,
    TaskName.REFINE: Refinement,
    TaskName.IMPORT: ImportedNetwork,
    TaskName.INDEX: OwnDataset,
}
"""The rows that a task claims; planning claims none, see `service.leases.claim_planning`."""


def make_celery(settings: Settings) -> Celery:
    """Build the Celery app that service and workers share. Connects only when used."""
    from celery import Celery

    celery = Celery("espalier", set_as_current=False)
    celery.conf.update(
        task_queues=[queue_called(name) for name in QueueName],
        task_default_queue=str(QueueName.CONTROL),
        task_routes={str(task): {"queue": str(queue)} for task, queue in QUEUE_OF.items()},
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        # With early acknowledgement a worker would take one message more than it works on, and let it wait.
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_connection_timeout=3,
        **_broker(settings),
    )
    return celery


def queue_called(name: str) -> Queue:
    """A queue as brokers know it: reached by its name alone."""
    from kombu.entity import Exchange, Queue

    return Queue(name, Exchange(""), routing_key=name)  # type: ignore[no-untyped-call]


def device_queue(queue: QueueName, device: str) -> str:
    """The name of one of a device's own queues."""
    return f"{queue}.{device}"


def queue_of(session: Session, task: TaskName, row_id: int | str) -> str:
    """The name of the queue of a message: that of the search's device where it has one that is somewhere."""
    common, model = QUEUE_OF[task], MODEL_OF.get(task)
    if model is None or not issubclass(model, SearchWork):
        return str(common)
    spec = session.scalar(select(Search.spec).join(model, model.search_id == Search.id).where(model.id == row_id))
    name = None if spec is None else SearchSpec.model_validate(spec).device
    device = None if name is None else session.get(Device, name)
    if name is None or (device is not None and device.is_everywhere):
        return str(common)
    return device_queue(common, name)


def send_after_commit(session: Session, task: TaskName, row_id: int | str) -> None:
    """Send `task` for a row once the session has committed, and note in the row that a message is on its way.

    A send that fails is logged by `service.db.commit`; the reaper repeats it.
    """
    model = MODEL_OF.get(task)
    if model is not None:
        session.execute(update(model).where(model.id == row_id).values(published_at=utc_now()))
    queue = queue_of(session, task, row_id)
    after_commit(session, lambda: send(task, row_id, queue))


def send(task: TaskName, row_id: int | str, queue: str) -> None:
    """Send at once. Only for what has been committed."""
    get_celery().send_task(str(task), args=[row_id], queue=queue_called(queue), ignore_result=True, retry=False)


@lru_cache(maxsize=1)
def get_celery() -> Celery:
    return make_celery(get_settings())


def _broker(settings: Settings) -> dict[str, Any]:
    if settings.is_broker_embedded:
        from service import folder_broker

        return {
            "broker_url": "folders://localhost",
            "broker_transport": f"{folder_broker.__name__}:{folder_broker.Transport.__name__}",
            "broker_transport_options": folder_broker.transport_options(settings.broker_folder),
        }
    options: dict[str, Any] = {
        # A broker that is away must not keep a request waiting: the reaper sends later. Workers have another patience.
        "max_retries": 1,
        "interval_start": 0,
        "interval_step": 0,
    }
    broker: dict[str, Any] = {"broker_url": settings.broker_url, "broker_transport_options": options}
    if str(settings.broker_url).startswith("redis"):
        options |= {"visibility_timeout": VISIBILITY_TIMEOUT_S, "socket_connect_timeout": 3}
        broker["visibility_timeout"] = VISIBILITY_TIMEOUT_S  # kombu reads the option, Celery's checks read this
    return broker
