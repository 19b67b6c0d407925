"""Writes the devices of this machine to the database: that is all the service ever knows of them."""

from __future__ import annotations

from sqlalchemy import Engine

from search_spaces.capabilities import DeviceCapabilities
from service.db import transaction
from service.devices.actions import announce

ANNOUNCE_EVERY_S = 20.0


def local_capabilities() -> list[DeviceCapabilities]:
    """What the devices of this machine say of themselves. Imported late: the runtimes are large."""
    from workers.hardware import DEVICES

    return [make().capabilities() for make in DEVICES.values()]


def announce_devices(engine: Engine, devices: list[DeviceCapabilities]) -> None:
    """Announce them, or repeat it as a sign of life."""
    with transaction(engine) as session:
        for capabilities in devices:
            announce(session, capabilities)
