"""Health over HTTP."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter
from sqlalchemy import func, select

from service.config import Settings
from service.db import is_current, reading
from service.devices.queries import list_devices
from service.edge import EngineDep, SettingsDep
from service.errors import NotReadyError
from service.health.schemas import HealthBody, SeenDevice
from service.models import Trial

router = APIRouter(tags=["health"])


@router.get("/health")
def read_health(engine: EngineDep, settings: SettingsDep) -> HealthBody:
    """Say 200 when the database answers and has the newest schema, 503 otherwise."""
    with reading(engine) as session:
        if not is_current(session.connection()):
            raise NotReadyError("the database has another schema; run `espalier up`, or the migrations")
        devices = [SeenDevice(name=device.name, seen_at=device.seen_at) for device in list_devices(session)]
        trial_ended_at = session.scalar(select(func.max(Trial.finished_at)))
    seen = [device.seen_at for device in devices] + ([trial_ended_at] if trial_ended_at else [])
    return HealthBody(
        status="ready",
        version=version("espalier"),
        database=engine.dialect.name,
        queue=_queue_kind(settings),
        devices=devices,
        last_sign_of_life=max(seen, default=None),
    )


def _queue_kind(settings: Settings) -> str:
    return "folders" if settings.broker_url is None else settings.broker_url.partition("://")[0]
