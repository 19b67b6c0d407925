"""The devices that a worker on this machine can offer, by name."""

from __future__ import annotations

from collections.abc import Callable

from workers.hardware import onnxruntime_cpu
from workers.hardware.base import Device

DEVICES: dict[str, Callable[[], Device]] = {onnxruntime_cpu.NAME: onnxruntime_cpu.OnnxRuntimeCpu}
