"""What an operator calls a device of this machine, and how a worker tells its evaluators. Loads no runtime."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

_VARIABLE = "ESPALIER_DEVICE"


@dataclass(frozen=True)
class DeviceName:
    """A device under the name that specs say.

    Attributes:
        kind: what it is installed as; many machines have one of the kind.
    """

    name: str
    kind: str


def environment_for(named: DeviceName | None) -> Mapping[str, str]:
    """What the evaluators of a worker find in their environment that is for one device, or for none in particular."""
    return {_VARIABLE: "" if named is None else f"{named.name}={named.kind}"}


def own_device() -> DeviceName | None:
    """The device that this process's worker is for; None where it may use all that are installed."""
    name, _, kind = os.environ.get(_VARIABLE, "").partition("=")
    return DeviceName(name, kind) if name else None
