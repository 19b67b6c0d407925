"""A worker's devices while it lives: announced before any work for them can come, repeated, and freed at the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from service.db import reading, transaction
from service.devices.actions import Announcer, DeviceTakenError, announce, check_is_free, leave, wake_waiting
from service.devices.queries import LIVE_FOR_S
from workers.announce import Offered

SIGN_OF_LIFE_EVERY_S = LIVE_FOR_S / 4
LOOK_EVERY_S = 0.5

_log = logging.getLogger(__name__)


@dataclass
class Presence:
    """Order of calls: `begin`, `repeat` as often as wanted, `end`.

    Attributes:
        announcer: this worker.
        devices: those that it has announced.
    """

    engine: Engine
    announcer: Announcer
    devices: list[Offered] = field(default_factory=list)
    _shared_at: dict[str, float] = field(default_factory=dict)

    def begin(self, offered: Sequence[Offered], *, needs_all: bool) -> None:
        """Announce devices, one after the other; those that are taken are left out.

        Raises:
            DeviceTakenError: one is taken, and all are needed.
        """
        for device in offered:
            try:
                await_free(self.engine, device, self.announcer)
                self._announce([device])  # somebody else may have been faster
            except DeviceTakenError as error:
                if needs_all:
                    raise
                _log.error("%s; this worker leaves it out", error)
            else:
                self.devices.append(device)
        wake_waiting(self.engine)

    def repeat(self) -> None:
        """Give a sign of life, and look for what may go on by that.

        Raises:
            DeviceTakenError: a name stands for another's by now; nothing is written then.
        """
        self._announce(self.devices)
        wake_waiting(self.engine)

    def end(self) -> None:
        """Free the names, but for those that another worker has as well: it goes on measuring under them."""
        now = time.monotonic()
        alone = [name for name in self._names() if now - self._shared_at.get(name, -LIVE_FOR_S) >= LIVE_FOR_S]
        try:
            with transaction(self.engine) as session:
                leave(session, self.announcer.owner, alone)
        except OperationalError:
            _log.warning("cannot reach the database to say that this worker ends")

    def _announce(self, devices: Sequence[Offered]) -> None:
        with transaction(self.engine) as session:
            shared = [
                device.capabilities.name
                for device in devices
                if announce(session, device.capabilities, self.announcer, device.kind)
            ]
        self._shared_at |= dict.fromkeys(shared, time.monotonic())

    def _names(self) -> list[str]:
        return [device.capabilities.name for device in self.devices]


def await_free(engine: Engine, device: Offered, announcer: Announcer) -> None:
    """Return once a name is free or ours: whoever has it may be dead, and not have been missed yet.

    Raises:
        DeviceTakenError: its owner has given another sign of life, or it would not be free without one.
    """
    first: DeviceTakenError | None = None
    while True:
        try:
            with reading(engine) as session:
                return check_is_free(session, device.capabilities, announcer)
        except DeviceTakenError as error:
            if error.seen_at is None or (first is not None and error.seen_at != first.seen_at):
                raise
            first = first or error
        time.sleep(LOOK_EVERY_S)
