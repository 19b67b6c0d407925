"""What the first estimate would otherwise wait for: cost models that are read, statements that are compiled."""

from __future__ import annotations

import logging

from sqlalchemy import Engine

from search_spaces.spec import Family, NetworkSpec
from service.db import reading
from service.devices.queries import list_devices
from service.estimates.actions import estimate
from service.estimates.schemas import EstimateRequest

_log = logging.getLogger(__name__)
_NETWORK = NetworkSpec(family=Family.MOBILENET_V1, input=(3, 32, 32), width=0.25)


def warm_up(engine: Engine) -> None:
    """Estimate something on each device. A database that is not there yet is no error: the first caller will see."""
    try:
        with reading(engine) as session:
            for device in list_devices(session):
                estimate(session, EstimateRequest(network=_NETWORK, device=device.name))
    except Exception:
        _log.info("the first estimate will take longer", exc_info=True)
