"""Reads what workers announced."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from search_spaces.capabilities import DeviceCapabilities
from service.models import Device


def list_devices(session: Session) -> list[Device]:
    return list(session.scalars(select(Device).order_by(Device.name)))


def known_devices(session: Session) -> dict[str, DeviceCapabilities]:
    """Capabilities by the device's name."""
    return {row.name: DeviceCapabilities.model_validate(row.capabilities) for row in list_devices(session)}
