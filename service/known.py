"""What a spec may name, as far as the database knows: workers announce it, users hand it over.

Only what a spec names is loaded: networks are large.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from search_spaces.check import unknown_name
from search_spaces.datasets import DATASETS, DatasetInfo, dataset_from_json
from search_spaces.known import Known, OwnNetwork, Sources
from search_spaces.network import network_from_json
from search_spaces.scores import ScoreInfo
from search_spaces.spec import OwnNetworkSpec, SearchSpec
from service.datasets.queries import find_dataset, list_names, present_datasets
from service.devices.queries import absent_devices, known_devices
from service.models import ImportedNetwork, Offer, OwnDataset, Search
from service.networks.queries import find_network, list_networks
from service.offers import OfferKind, list_offers
from service.states import JobState


def known_for(session: Session, spec: SearchSpec, sources: Mapping[str, Any] | None = None) -> Known:
    """What is known for a spec.

    Args:
        session: reading is enough.
        spec: whose names are looked up.
        sources: of a search that was accepted: its names keep standing for what they stood for then.
    """
    pinned = Sources.model_validate(sources or {})
    offers = list_offers(session)
    names = {kind: frozenset(row.name for row in offers if row.kind == kind) for kind in OfferKind}
    usual = Known()
    datasets, unready = _named_dataset(session, spec.dataset.name, pinned.dataset)
    networks: dict[str, OwnNetwork] = {}
    if isinstance(spec.network, OwnNetworkSpec):
        networks, reasons = _named_network(session, spec.network.name)
        unready |= reasons
    return Known(
        devices=known_devices(session),
        absent=absent_devices(session),
        networks=networks,
        datasets=datasets,
        scores={**usual.scores, **_scores(offers)},
        samplers=usual.samplers | names[OfferKind.SAMPLER],
        importances=usual.importances | names[OfferKind.IMPORTANCE],
        unready=unready,
        searches=frozenset(session.scalars(select(Search.id).where(Search.id.in_(spec.warm_start)))),
    )


def known_for_search(session: Session, search: Search) -> Known:
    """What is known for a search that was accepted."""
    return known_for(session, SearchSpec.model_validate(search.spec), search.sources)


def _named_dataset(session: Session, name: str, digest: str | None) -> tuple[dict[str, DatasetInfo], dict[str, str]]:
    """All that nobody has to add, and the named one of a user; or why it cannot be used.

    A user's comes before one that a worker announced later: the name goes on standing for what it stood for.
    """
    present = present_datasets(session)
    row = None if name in DATASETS else find_dataset(session, name, digest)
    if row is not None and row.info is not None:
        return present | {name: dataset_from_json(row.info)}, {}
    if row is not None:
        return present, {f"data set {name}": _why_not(row)}
    if name in present:
        return present, {}
    return present, {f"data set {name}": unknown_name("data set", name, [*present, *list_names(session)])}


def _named_network(session: Session, name: str) -> tuple[dict[str, OwnNetwork], dict[str, str]]:
    row = find_network(session, name)
    if row is None:
        names = [other.name for other in list_networks(session) if other.state == JobState.SUCCEEDED]
        return {}, {f"network {name}": unknown_name("network", name, names)}
    if row.network is None or row.base_key is None:
        return {}, {f"network {name}": _why_not(row)}
    class_names = tuple(row.report.get("class_names", ()))
    left_out = row.report.get("left_out", "")
    return {name: OwnNetwork(name, row.base_key, network_from_json(row.network), class_names, left_out)}, {}


def _why_not(row: ImportedNetwork | OwnDataset) -> str:
    if row.state == JobState.FAILED:
        return f"{row.name} could not be brought in: {row.reason}"
    return f"{row.name} is still being looked at by a worker; submit the spec again when that is done"


def _scores(offers: Iterable[Offer]) -> dict[str, ScoreInfo]:
    return {row.name: ScoreInfo.model_validate(row.details) for row in offers if row.kind == OfferKind.SCORE}
