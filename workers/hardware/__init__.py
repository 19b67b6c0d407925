"""The devices that a worker on this machine can offer, by name, and those that it lacks something for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

from search_spaces.extensions import NotInstalledError, look_up, with_installed
from workers.hardware import onnxruntime_cpu, openvino_cpu, torch_cuda
from workers.hardware.accelerators import ACCELERATORS
from workers.hardware.base import Device
from workers.hardware.zigzag import SHIPPED, own_accelerators

MakeDevice = Callable[[], Device]

DEVICES: dict[str, MakeDevice] = {
    onnxruntime_cpu.NAME: onnxruntime_cpu.OnnxRuntimeCpu,
    openvino_cpu.NAME: openvino_cpu.OpenVinoCpu,
    torch_cuda.NAME: torch_cuda.TorchCuda,
    **ACCELERATORS,
    **SHIPPED,
}


@lru_cache(maxsize=1)
def installed_devices() -> dict[str, MakeDevice]:
    """Those here, accelerators of the operator's, and what is installed in this Python (`espalier.devices`).

    Some may be absent: see `absent_devices`.
    """
    return with_installed(DEVICES | own_accelerators(), "espalier.devices", Device)


def present_devices() -> dict[str, Device]:
    """Those that work on this machine."""
    made = {name: make() for name, make in installed_devices().items()}
    return {name: device for name, device in made.items() if not device.why_absent()}


def absent_devices() -> dict[str, str]:
    """Those that do not, and what each lacks."""
    reasons = {name: make().why_absent() for name, make in installed_devices().items()}
    return {name: reason for name, reason in reasons.items() if reason}


def open_device(name: str, offered: Mapping[str, MakeDevice]) -> Device:
    """The device of that name. Raises `NotInstalledError`: there is none, or this machine lacks something for it."""
    device: Device = look_up("device", name, offered)()
    if reason := device.why_absent():
        raise NotInstalledError(f"this worker cannot offer the device {name!r}: {reason}")
    return device
