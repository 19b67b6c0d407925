"""Reads what workers announced."""

from __future__ import annotations

import shlex
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from search_spaces.capabilities import DeviceCapabilities
from service.errors import NotFoundError
from service.models import Device, utc_now

LIVE_FOR_S = 20.0
"""A device is there until so long after its last sign of life; workers give four in that time."""


def list_devices(session: Session) -> list[Device]:
    return list(session.scalars(select(Device).order_by(Device.name)))


def get_device(session: Session, name: str) -> Device:
    """Raises `NotFoundError`: no worker has announced it, and nobody has profiled it."""
    device = session.get(Device, name)
    if device is None:
        raise NotFoundError(f"there is no device {name!r}; a worker announces what its machine has")
    return device


def known_devices(session: Session) -> dict[str, DeviceCapabilities]:
    """Capabilities by the device's name."""
    return {row.name: DeviceCapabilities.model_validate(row.capabilities) for row in list_devices(session)}


def is_live(device: Device) -> bool:
    """Whether a worker has it that lives, as far as clocks of several machines agree."""
    return utc_now() - device.seen_at < timedelta(seconds=LIVE_FOR_S)


def absent_devices(session: Session) -> dict[str, str]:
    """The devices that no live worker has, and for people, what to do about each."""
    return {row.name: why_absent(row) for row in list_devices(session) if not is_live(row)}


def why_absent(device: Device) -> str:
    """What a search waits for that names a device which is not live. The same words until that has changed."""
    seen = f"{device.seen_at:%Y-%m-%d %H:%M:%S} UTC"
    if device.is_everywhere:
        return f"the device {device.name} was last seen at {seen}; start any worker: espalier worker"
    named = device.name if device.kind in ("", device.name) else f"{device.name}={device.kind}"
    place = f" on {device.host}" if device.host else ""
    remedy = f"start its worker: espalier worker --device {shlex.quote(named)}"
    return f"the device {device.name} was last seen at {seen}{place}; {remedy}"
