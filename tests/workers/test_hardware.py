"""Which devices a machine offers: those that work here, and of the others what is missing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from search_spaces.accelerators.models import MODELS
from search_spaces.extensions import NotInstalledError
from workers.announce import local_capabilities
from workers.hardware import absent_devices, installed_devices, open_device, openvino_cpu, present_devices, zigzag
from workers.hardware.onnxruntime_cpu import NAME


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch):
    """Makes packages seem not to be installed."""
    real = importlib.util.find_spec

    def hide(*names: str) -> None:
        found = lambda name, *rest: None if name in names else real(name, *rest)  # noqa: E731
        for module in (openvino_cpu, zigzag):
            monkeypatch.setattr(module, "find_spec", found)

    return hide


def test_devices_are_listed_under_their_own_names():
    assert {name: device.capabilities().name for name, device in present_devices().items()} == {
        name: name for name in present_devices()
    }
    assert {NAME, *MODELS} <= set(present_devices())


@pytest.mark.parametrize(
    ("package", "device", "extra"),
    [
        ("openvino", "openvino-cpu", "openvino"),
        ("zigzag", "zigzag-tpu-like", "zigzag"),
        ("six", "zigzag-tpu-like", "zigzag"),
    ],
)
def test_what_is_absent_is_told_with_the_remedy_and_is_not_announced(without, package, device, extra):
    without(package)
    assert f"pip install 'espalier[{extra}]'" in absent_devices()[device]
    assert device not in {one.name for one in local_capabilities()}
    with pytest.raises(NotInstalledError, match=f"cannot offer the device '{device}': .* is not installed"):
        open_device(device, installed_devices())


def test_a_device_is_present_or_absent():
    assert not set(present_devices()) & set(absent_devices())


def test_an_unknown_device_is_refused_with_those_that_there_are():
    with pytest.raises(NotInstalledError, match=r"no device 'abacus'; it has .*local-cpu"):
        open_device("abacus", installed_devices())


def test_asking_for_devices_loads_no_large_runtime():
    code = (
        "import sys, workers.hardware as hardware\n"
        "hardware.absent_devices()\n"
        "print(*sorted({'torch', 'openvino', 'zigzag', 'zeus'} & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == ""
