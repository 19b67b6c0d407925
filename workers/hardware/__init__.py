"""The devices that a worker on this machine can offer, by name."""

from __future__ import annotations

from functools import lru_cache

from search_spaces.extensions import with_installed
from workers.hardware import onnxruntime_cpu
from workers.hardware.base import Device

DEVICES: dict[str, type[Device]] = {onnxruntime_cpu.NAME: onnxruntime_cpu.OnnxRuntimeCpu}


@lru_cache(maxsize=1)
def installed_devices() -> dict[str, type[Device]]:
    """Those here, and those that the operator installed in this Python (`espalier.devices`), made without arguments."""
    return with_installed(DEVICES, "espalier.devices", Device)
