"""Reads what cost models are fitted to, the model that holds now, and how right it was."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache

from sqlalchemy import select
from sqlalchemy.orm import Session

from search_spaces.capabilities import DeviceCapabilities
from search_spaces.cost_models.additive import AdditiveModel, model_from_bytes
from search_spaces.cost_models.terms import Term, network_terms
from search_spaces.costs import WorkloadKind
from search_spaces.objectives import Metric, Provenance
from service.measurements.actions import in_chunks
from service.models import Conditions, CostModel, Device, Measurement, Search, Trial, Workload

HELD_OUT = 5
"""One network in so many is kept from a model that is fitted, to tell its error by."""

GROWN_BY, GROWN_SHARE = 20, 0.1
"""A model is fitted again when so many networks have come, and they are such a share of what it was fitted to."""


@dataclass(frozen=True)
class MeasuredNetwork:
    """A network that was measured once or more.

    Attributes:
        operators: the signature of each of its operators.
        reads: whose results each reads.
        costs: what was measured, in the order that it was.
    """

    digest: str
    operators: tuple[str, ...]
    reads: tuple[tuple[int, ...], ...]
    costs: list[float] = field(default_factory=list)

    def terms(self) -> tuple[Term, ...]:
        """See `search_spaces.cost_models.terms`."""
        return network_terms(self.operators, self.reads)


@dataclass(frozen=True)
class Fitted:
    """A cost model with the number of its row."""

    id: int
    version: int
    model: AdditiveModel


def measured_networks(session: Session, conditions_id: int, metric: Metric) -> list[MeasuredNetwork]:
    """All networks that were measured under some conditions, in the order of their first measurement.

    A search tells figures to the scale of its own base, as that was measured then: the machine may have been slower
    throughout. Where the base has been profiled too, they are brought to the profile's scale; else they are left out.
    """
    query = (
        select(Workload.digest, Workload.signature, Measurement.median, Trial.search_id)
        .join(Workload, Workload.id == Measurement.workload_id)
        .outerjoin(Trial, Trial.id == Measurement.trial_id)
        .where(
            Measurement.conditions_id == conditions_id,
            Measurement.metric == str(metric),
            Measurement.provenance == str(Provenance.MEASURED),
            Workload.kind == str(WorkloadKind.NETWORK),
            Workload.signature != "",
        )
        .order_by(Measurement.id)
    )
    rows = session.execute(query).all()
    profiled = {digest: cost for digest, _, cost, search_id in rows if search_id is None}
    scales = _scales(session, {row.search_id for row in rows if row.search_id is not None}, profiled, metric)
    described = {digest: json.loads(signature) for digest, signature, _, _ in rows}
    signatures = _signatures(session, {one for network in described.values() for one in network["operators"]})
    found: dict[str, MeasuredNetwork] = {}
    for digest, _, cost, search_id in rows:
        network, scale = described[digest], scales.get(search_id)
        if scale is None or not all(one in signatures for one in network["operators"]):
            continue
        if digest not in found:
            operators = tuple(signatures[one] for one in network["operators"])
            found[digest] = MeasuredNetwork(digest, operators, tuple(map(tuple, network["reads"])))
        found[digest].costs.append(scale * cost)
    return list(found.values())


def _scales(
    session: Session, search_ids: set[str], profiled: Mapping[str, float], metric: Metric
) -> dict[str | None, float]:
    """What brings a search's figures to the profile's scale, by search; those of the profile itself are."""
    scales: dict[str | None, float] = {None: 1.0}
    for search_id in search_ids:
        anchor = (session.scalar(select(Search.base_report).where(Search.id == search_id)) or {}).get("anchor") or {}
        of_profile, of_search = profiled.get(anchor.get("workload_digest", "")), anchor.get(metric)
        if of_profile and of_search:
            scales[search_id] = of_profile / of_search
    return scales


def grown_conditions(session: Session) -> list[int]:
    """Conditions whose model was fitted to clearly fewer networks than are measured by now."""
    current = [number for device in session.scalars(select(Device)) for number in current_conditions(session, device)]
    grown = []
    for conditions_id in current:
        newest = select(CostModel.report).where(CostModel.conditions_id == conditions_id).order_by(CostModel.id.desc())
        report = session.scalar(newest.limit(1))
        if report is not None:
            before = report.get("networks", 0)
            now = len(measured_networks(session, conditions_id, Metric.LATENCY_S))
            if now - before >= max(GROWN_BY, GROWN_SHARE * before):
                grown.append(conditions_id)
    return grown


def _signatures(session: Session, digests: set[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for chunk in in_chunks(sorted(digests)):
        rows = session.execute(select(Workload.digest, Workload.signature).where(Workload.digest.in_(chunk)))
        found.update((digest, signature) for digest, signature in rows if signature)
    return found


def current_conditions(session: Session, device: Device) -> Sequence[int]:
    """Conditions that a device's figures are taken under now, at the batch and threads of searches; newest first."""
    told = DeviceCapabilities.model_validate(device.capabilities)
    query = select(Conditions).where(
        Conditions.device == device.name, Conditions.fingerprint_digest == device.fingerprint_digest
    )
    return [
        row.id
        for row in session.scalars(query.order_by(Conditions.id.desc()))
        if (row.protocol.get("batch"), row.protocol.get("threads")) == (told.batch, told.threads)
    ]


def current_model(session: Session, device: Device, metric: Metric) -> Fitted | None:
    """The newest model of what a device is now; None when none was fitted, or only to what is stale."""
    model_id = current_model_id(session, device, metric)
    if model_id is None:
        return None
    version = session.scalar(select(CostModel.version).where(CostModel.id == model_id))
    assert version is not None, "the row was found just now"
    return Fitted(model_id, version, load_model(session, model_id))


def current_model_id(session: Session, device: Device, metric: Metric) -> int | None:
    """Of the row that `current_model` loads."""
    conditions = current_conditions(session, device)
    of_device = (CostModel.conditions_id.in_(conditions), CostModel.metric == str(metric))
    return session.scalar(select(CostModel.id).where(*of_device).order_by(CostModel.id.desc()).limit(1))


def load_model(session: Session, model_id: int) -> AdditiveModel:
    """A model by its number; some are kept, since rows never change."""
    when = session.scalar(select(CostModel.created_at).where(CostModel.id == model_id))
    key = (str(session.get_bind().engine.url), model_id, when)  # numbers begin again in a database that was emptied
    kept = _kept().get(key)
    if kept is None:
        content = session.scalar(select(CostModel.content).where(CostModel.id == model_id))
        assert content is not None, "the row was found just now"
        kept = model_from_bytes(content)
        while len(_kept()) >= _MOST_KEPT:
            _kept().pop(next(iter(_kept()), key), None)  # another thread may have taken it
        _kept()[key] = kept
    return kept


_MOST_KEPT = 8


@lru_cache(maxsize=1)
def _kept() -> dict[tuple[str, int, datetime | None], AdditiveModel]:
    return {}
