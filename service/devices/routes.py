"""Devices over HTTP."""

from __future__ import annotations

from fastapi import APIRouter

from service.db import reading
from service.devices.accuracy import read_accuracy
from service.devices.queries import get_device, list_devices
from service.devices.schemas import AccuracyBody, DeviceBody, DevicePage, device_body
from service.edge import EngineDep, NameInPath

router = APIRouter(prefix="/devices", tags=["devices"])


@router.get("")
def read_devices(engine: EngineDep) -> DevicePage:
    """List the devices that workers have announced: what they execute, and what they can tell."""
    with reading(engine) as session:
        return DevicePage(items=[device_body(device) for device in list_devices(session)])


@router.get("/{name}")
def read_device(engine: EngineDep, name: NameInPath) -> DeviceBody:
    """Read one device."""
    with reading(engine) as session:
        return device_body(get_device(session, name))


@router.get("/{name}/accuracy")
def read_device_accuracy(engine: EngineDep, name: NameInPath) -> AccuracyBody:
    """Read how right a device's cost models were: on networks held out, and on trials that were measured as well."""
    with reading(engine) as session:
        return read_accuracy(session, get_device(session, name))
