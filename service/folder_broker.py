"""A broker that needs no server: messages are files in a folder. For Celery; knows nothing of searches.

This is kombu's filesystem transport with two of its races closed: a message appears under its name only when it is
wholly written, and is taken by a rename within one folder, which exactly one reader wins. Files sort by the wall
clock, so that the order survives a restart of the machine. A taken message is gone: whatever must survive a killed
reader is a row.
"""

from __future__ import annotations

import json
import math
import os
import time
import uuid
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.transport import filesystem

MESSAGES_FOLDER = "messages"
BUSY_POLL_S, IDLE_POLL_S = 0.002, 0.02
BUSY_FOR_S = 5.0


def transport_options(folder: Path) -> dict[str, Any]:
    """Make the folder of the messages below `folder`, and build the options that the transport finds it by."""
    messages = folder / MESSAGES_FOLDER
    messages.mkdir(parents=True, exist_ok=True)
    return {"data_folder_in": str(messages), "data_folder_out": str(messages)}


class Channel(filesystem.Channel):
    """Writes and takes one file per message. Queues are reached by their names alone, so there is nothing to bind.

    Attributes:
        took_at: when this channel last took a message, by the monotonic clock.
    """

    supports_fanout = False
    took_at = -math.inf

    def _put(self, queue: str, payload: Any, **kwargs: Any) -> None:  # type: ignore[override]
        target = Path(self.data_folder_out) / f"{time.time_ns()}_{uuid.uuid4()}.{queue}.msg"
        unfinished = target.with_suffix(".unfinished")
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(json.dumps(payload))
        unfinished.rename(target)

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        for name in self._waiting(queue):
            taken = Path(self.data_folder_in) / f"{name}.taken"
            try:
                (Path(self.data_folder_in) / name).rename(taken)
            except FileNotFoundError:
                continue  # another reader was faster
            payload = json.loads(taken.read_text())
            taken.unlink()
            self.took_at = time.monotonic()
            return payload
        raise Empty

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        pass

    def _size(self, queue: str) -> int:
        return len(self._waiting(queue))

    def _waiting(self, queue: str) -> list[str]:
        try:
            names = os.listdir(self.data_folder_in)
        except FileNotFoundError:
            return []  # somebody removed the folder: the messages are lost, the rows are not
        return sorted(name for name in names if name.partition(".")[2] == f"{queue}.msg")


class Transport(filesystem.Transport):
    """What the setting `broker_transport` names."""

    Channel = Channel
    driver_name = "folders"

    @property
    def polling_interval(self) -> float:  # type: ignore[override]
        """Seconds between two looks into the folder: short after a message, when the next one is seldom far."""
        took_at = max((channel.took_at for channel in self.channels), default=-math.inf)
        return BUSY_POLL_S if time.monotonic() - took_at < BUSY_FOR_S else IDLE_POLL_S
