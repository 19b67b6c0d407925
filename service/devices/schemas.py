"""Devices as the API shows them."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel

from search_spaces.capabilities import DeviceCapabilities
from service.devices.queries import is_live
from service.models import Device


class DeviceBody(BaseModel):
    """A device as its worker announced it; `seen_at` is the worker's last sign of life.

    `kind` is what all machines call it, where an operator has given it a name of its own; `host` is the machine that
    has it, empty for a simulated one; `is_live` says whether a worker has it now.
    """

    name: str
    kind: str
    host: str
    is_live: bool
    capabilities: DeviceCapabilities
    announced_at: datetime
    seen_at: datetime


class DevicePage(BaseModel):
    items: list[DeviceBody]


def device_body(device: Device) -> DeviceBody:
    return DeviceBody(
        name=device.name,
        kind=device.kind,
        host=device.host,
        is_live=is_live(device),
        capabilities=DeviceCapabilities.model_validate(device.capabilities),
        announced_at=device.announced_at,
        seen_at=device.seen_at,
    )
