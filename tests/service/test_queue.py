"""Messages: each is taken once, whatever carries it, and a broker that is away holds nobody up."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from queue import Empty

import pytest
from celery import Celery

from service.config import Settings
from service.folder_broker import MESSAGES_FOLDER
from service.queue import QUEUE_OF, QueueName, TaskName, device_queue, make_celery, queue_called

MESSAGES, READERS = 60, 4


@pytest.fixture(params=["folders", "redis"])
def celery(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Celery]:
    url = request.getfixturevalue("redis_url") if request.param == "redis" else None
    app = make_celery(Settings(home=tmp_path, broker_url=url))
    yield app
    app.close()


def send(celery: Celery, task: TaskName, row_id: int) -> None:
    celery.send_task(str(task), args=[row_id], ignore_result=True, retry=False)


def take_all(celery: Celery, queue: str) -> list[int]:
    """What one reader takes until nothing is left."""
    taken = []
    with celery.connection_for_read() as connection:
        channel = connection.channel()
        while True:
            message = channel.basic_get(str(queue))
            if message is None:
                return taken
            channel.basic_ack(message.delivery_tag)
            taken.append(message.decode()[0][0])


def test_each_message_is_taken_once_by_one_of_many_readers(celery: Celery) -> None:
    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(lambda row_id: send(celery, TaskName.RUN, row_id), range(MESSAGES)))
        taken = list(pool.map(lambda _: take_all(celery, QueueName.TRIALS), range(READERS)))
    assert sorted(chain(*taken)) == list(range(MESSAGES))


def test_long_work_and_planning_have_queues_of_their_own(celery: Celery) -> None:
    for number, task in enumerate(TaskName):
        send(celery, task, number)
    for queue in QueueName:
        expected = [number for number, task in enumerate(TaskName) if QUEUE_OF[task] is queue]
        assert take_all(celery, queue) == expected
    assert QUEUE_OF[TaskName.PLAN] is not QUEUE_OF[TaskName.RUN]


def test_each_device_has_queues_of_its_own(celery: Celery) -> None:
    """Whatever it is called: a name has spaces and dots, and may look like another's queue or a file."""
    queues = [
        device_queue(kind, name) for name in ("attic xeon.1", "attic", "attic.msg", "trials") for kind in QueueName
    ]
    for number, name in enumerate([*queues, *queues]):
        celery.send_task(str(TaskName.RUN), args=[number], queue=queue_called(name), ignore_result=True, retry=False)
    for queue in QueueName:
        assert take_all(celery, queue) == []
    assert {name: take_all(celery, name) for name in queues} == {
        name: [number, number + len(queues)] for number, name in enumerate(queues)
    }


def test_only_ids_cross_the_queue(tmp_path: Path) -> None:
    celery = make_celery(Settings(home=tmp_path))
    send(celery, TaskName.RUN, 7)
    (path,) = (tmp_path / "broker" / MESSAGES_FOLDER).glob("*.msg")
    assert json.loads(path.read_text())["content-type"] == "application/json"
    assert take_all(celery, QueueName.TRIALS) == [7]
    assert list((tmp_path / "broker" / MESSAGES_FOLDER).iterdir()) == []
    celery.close()


def test_reader_never_sees_half_a_message(tmp_path: Path) -> None:
    """With kombu's own transport a file can be taken between its creation and its first byte."""
    celery = make_celery(Settings(home=tmp_path))
    is_over = threading.Event()
    taken: list[int] = []

    def read() -> None:
        with celery.connection_for_read() as connection:
            channel = connection.channel()
            while not is_over.is_set() or channel._size(QueueName.TRIALS):
                try:
                    taken.append(len(channel._get(QueueName.TRIALS)["body"]))
                except Empty:
                    continue

    reader = threading.Thread(target=read)
    reader.start()
    with celery.connection_for_write() as connection:
        channel = connection.channel()
        for _ in range(300):
            channel._put(QueueName.TRIALS, {"body": "x" * 20_000})
    is_over.set()
    reader.join()
    assert taken == [20_000] * 300
    celery.close()


def test_broker_that_is_away_is_told_soon(tmp_path: Path) -> None:
    celery = make_celery(Settings(home=tmp_path, broker_url="redis://127.0.0.1:9/0"))
    began = time.monotonic()
    with pytest.raises(Exception, match="refused"):
        send(celery, TaskName.RUN, 1)
    assert time.monotonic() - began < 3
    celery.close()
