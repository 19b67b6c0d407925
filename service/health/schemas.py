"""The service's health as the API shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel


class SeenDevice(BaseModel):
    name: str
    seen_at: datetime


class HealthBody(BaseModel):
    """The service is ready.

    Whether work goes on shows in `last_sign_of_life`, the last thing that any worker wrote: a connection to the broker
    would not prove it.
    """

    status: Literal["ready"]
    version: str
    database: str
    queue: str
    devices: list[SeenDevice]
    last_sign_of_life: datetime | None
