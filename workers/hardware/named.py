"""A device under a name that its operator has given it: `lab-epyc=local-cpu`.

Many machines have a `local-cpu`, and they are different devices. A worker that is told a name offers that device
alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial

from pydantic import TypeAdapter, ValidationError

from search_spaces.accelerators.models import is_everywhere
from search_spaces.capabilities import DeviceCapabilities
from search_spaces.objectives import DEVICE_METRICS, Metric
from search_spaces.spec import Name
from workers.device_name import DeviceName, own_device
from workers.hardware import installed_devices, present_devices
from workers.hardware.base import Anchor, Deployed, Device, Results
from workers.hardware.timing import DEFAULT_PROTOCOL, Protocol

_NAME: TypeAdapter[str] = TypeAdapter(Name)


class DeviceNameError(ValueError):
    """What was given names no device that a worker of its own can be for."""


class NamedDevice(Device):
    """A device that calls itself otherwise; what it does is the same."""

    def __init__(self, name: str, kind: str) -> None:
        self._device = installed_devices()[kind]()
        self._name = name

    def capabilities(self) -> DeviceCapabilities:
        return self._device.capabilities().model_copy(update={"name": self._name})

    def why_absent(self) -> str:
        return self._device.why_absent()

    def measure(
        self,
        deployed: Deployed,
        anchor: Anchor | None = None,
        protocol: Protocol = DEFAULT_PROTOCOL,
        wanted: Collection[Metric] = DEVICE_METRICS,
    ) -> Results:
        return self._device.measure(deployed, anchor, protocol, wanted)


def parse_device(text: str) -> DeviceName:
    """Read `NAME` or `NAME=KIND`.

    Raises:
        DeviceNameError: the name is malformed or stands for something else; the kind is not installed, or is a closed
            form.
    """
    name, _, kind = text.partition("=")
    kind = kind or name
    try:
        _NAME.validate_python(name)
    except ValidationError:
        raise DeviceNameError(
            f"{name!r} is no name: up to 100 letters, digits, spaces and . _ -, a letter or digit first"
        ) from None
    installed = installed_devices()
    if kind not in installed:
        its_own = [name for name, device in present_devices().items() if not is_everywhere(device.capabilities())]
        known = ", ".join(sorted(its_own))
        raise DeviceNameError(f"this machine has no device {kind!r}; say which it is of {known}: {name}=KIND")
    if name != kind and name in installed:
        raise DeviceNameError(f"{name!r} is what every machine calls another kind of device; choose another name")
    device = installed[kind]()
    if reason := device.why_absent():
        raise DeviceNameError(f"this machine cannot offer {kind}: {reason}")
    if is_everywhere(device.capabilities()):
        raise DeviceNameError(f"{kind} is a closed form: every worker has it, it needs none of its own")
    return DeviceName(name, kind)


def offered_devices() -> Mapping[str, Callable[[], Device]]:
    """What this process may measure on, by name: what is installed, or the one device that its worker is for."""
    own = own_device()
    return installed_devices() if own is None else {own.name: partial(NamedDevice, own.name, own.kind)}
