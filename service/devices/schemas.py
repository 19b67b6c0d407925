"""Devices as the API shows them."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel

from search_spaces.capabilities import DeviceCapabilities
from service.models import Device


class DeviceBody(BaseModel):
    """A device as its worker announced it; `seen_at` is the worker's last sign of life."""

    name: str
    capabilities: DeviceCapabilities
    announced_at: datetime
    seen_at: datetime


class DevicePage(BaseModel):
    items: list[DeviceBody]


def device_body(device: Device) -> DeviceBody:
    return DeviceBody(
        name=device.name,
        capabilities=DeviceCapabilities.model_validate(device.capabilities),
        announced_at=device.announced_at,
        seen_at=device.seen_at,
    )
