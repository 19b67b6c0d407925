"""Devices as the API shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

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


class CostModelBody(BaseModel):
    """A version of a cost model.

    `is_current` says whether predictions come from it; a model of what the device was before it changed is none.
    `report` is its error on networks that it was not fitted to, and how well measurements of one network repeat; of the
    current version with `points`, each such network.
    """

    metric: str
    version: int
    batch: int | None
    threads: int | None
    samples: int
    is_current: bool
    report: dict[str, Any]
    created_at: datetime


class ResidualBody(BaseModel):
    """A trial that was predicted, and measured all the same; `why_measured`: limit, front, check or asked."""

    search_id: str
    trial: int
    metric: str
    predicted: float
    low: float
    high: float
    measured: float
    why_measured: str
    model_version: int
    measured_at: datetime


class ResidualSummary(BaseModel):
    """Of trials that were predicted and measured. Shares and errors are relative to what was measured."""

    trials: int
    mean_error: float
    within_5_percent: float
    within_10_percent: float
    interval_coverage: float


class AccuracyBody(BaseModel):
    """How right a device's cost models were: held out when they were fitted, and in searches since.

    `in_searches` is by the reason why a trial was measured. `check` and `asked` are fair samples; trials near a `limit`
    or on the `front` were chosen by their predictions.
    """

    device: str
    models: list[CostModelBody]
    in_searches: dict[str, ResidualSummary]
    residuals: list[ResidualBody]


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
