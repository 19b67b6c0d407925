"""Devices over HTTP."""

from __future__ import annotations

from fastapi import APIRouter

from service.db import reading
from service.devices.queries import list_devices
from service.devices.schemas import DevicePage, device_body
from service.edge import EngineDep

router = APIRouter(prefix="/devices", tags=["catalog"])


@router.get("")
def read_devices(engine: EngineDep) -> DevicePage:
    """List the devices that workers have announced: what they execute, and what they can tell."""
    with reading(engine) as session:
        return DevicePage(items=[device_body(device) for device in list_devices(session)])
