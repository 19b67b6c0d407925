"""Tells what is installed on this machine: to commands that run here, and to the database, for the service.

The service knows of devices, and of what operators have installed beside Espalier, only what is written here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from search_spaces.capabilities import DeviceCapabilities
from search_spaces.datasets import dataset_to_json
from search_spaces.known import Known
from search_spaces.samplers import SAMPLERS, installed_samplers
from search_spaces.scores import BUILT_IN_SCORES, installed_scores
from service.db import transaction
from service.offers import OfferKind, offer
from workers.device_name import DeviceName

ANNOUNCE_EVERY_S = 20.0
Offers = list[tuple[OfferKind, str, dict[str, Any]]]
"""Kind, name, and what a service has to know of it."""


@dataclass(frozen=True)
class Offered:
    """A device that this worker has.

    Attributes:
        kind: what it is installed as, where its name is another one.
    """

    capabilities: DeviceCapabilities
    kind: str = ""


def offered(named: DeviceName | None) -> list[Offered]:
    """The devices that a worker announces: all of this machine, or the one that it is for."""
    if named is None:
        return [Offered(capabilities) for capabilities in local_capabilities()]
    from workers.hardware.named import NamedDevice

    return [Offered(NamedDevice(named.name, named.kind).capabilities(), named.kind)]


def local_capabilities() -> list[DeviceCapabilities]:
    """What the devices that work on this machine say of themselves. Imported late: the runtimes are large."""
    from workers.hardware import present_devices

    return [device.capabilities() for device in present_devices().values()]


def local_known() -> Known:
    """Everything that a spec may name here, without a service."""
    from workers.datasets import installed_sources
    from workers.importance import installed_importances

    return Known(
        devices={device.name: device for device in local_capabilities()},
        datasets={name: source.info for name, source in installed_sources().items()},
        scores={name: score.info for name, score in installed_scores().items()},
        samplers=frozenset(installed_samplers()),
        importances=frozenset(installed_importances()),
    )


def sampler_offers() -> Offers:
    """The samplers that were installed for planners here."""
    return [(OfferKind.SAMPLER, name, {}) for name in _added(installed_samplers(), SAMPLERS)]


def trial_offers() -> Offers:
    """What was installed for trials here."""
    from workers.datasets import SOURCES, installed_sources
    from workers.importance import IMPORTANCES, installed_importances

    scores, sources = installed_scores(), installed_sources()
    return [
        *(
            (OfferKind.SCORE, name, scores[name].info.model_dump(mode="json"))
            for name in _added(scores, BUILT_IN_SCORES)
        ),
        *((OfferKind.IMPORTANCE, name, {}) for name in _added(installed_importances(), IMPORTANCES)),
        *((OfferKind.DATASET, name, dataset_to_json(sources[name].info)) for name in _added(sources, SOURCES)),
    ]


def announce_offers(engine: Engine, offers: Offers) -> None:
    """Write down what was installed beside Espalier, or repeat it as a sign of life."""
    with transaction(engine) as session:
        for kind, name, details in offers:
            offer(session, kind, name, details)


def _added(installed: Iterable[str], built_in: Iterable[str]) -> list[str]:
    known = set(built_in)
    return [name for name in installed if name not in known]
