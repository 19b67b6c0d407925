"""Reads measurements: what is known of a network's workloads on a device, and listings."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, select
from sqlalchemy.orm import Session, defer

from search_spaces.objectives import Provenance
from service.measurements.actions import in_chunks
from service.models import Conditions, Device, Measurement, Workload

NO_PROTOCOL: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Figures:
    """What one metric of a workload is, in the metric's own unit, and where that comes from."""

    median: float
    lower_quartile: float
    upper_quartile: float
    count: int
    provenance: Provenance
    is_stale: bool
    conditions_id: int
    measurement_id: int
    created_at: datetime


def lookup(
    session: Session,
    device: str,
    digests: Collection[str],
    metric: str,
    *,
    protocol: Mapping[str, Any] = NO_PROTOCOL,
    provenances: Collection[Provenance] = (),
    allow_stale: bool = False,
) -> dict[str, Figures]:
    """The newest figures of each workload on a device, by digest; workloads without any are left out.

    Args:
        session: reads only.
        device: its name.
        digests: of workloads.
        metric: such as `latency_s`.
        protocol: what the figures' protocol must say, such as `{"batch": 1, "threads": 1}`.
        provenances: where they may come from; empty: anywhere.
        allow_stale: use figures that were taken under another fingerprint too, where there are no others.
    """
    found: dict[str, Figures] = {}
    fitting: dict[int, bool] = {}
    for chunk in in_chunks(digests):
        query = _figures_of(device, metric, chunk, provenances)
        rows = session.execute(query if allow_stale else query.where(~is_stale())).all()
        if protocol:
            _match_protocols(session, {row.conditions_id for row in rows} - fitting.keys(), protocol, fitting)
            rows = [row for row in rows if fitting[row.conditions_id]]
        # The rows are in order: what is not stale after what is, the newest last.
        found.update((row.digest, _figures(row)) for row in rows)
    return found


def is_stale() -> ColumnElement[bool]:
    """Of a row's `Conditions`: its device has another fingerprint now. Of a device that never was announced: no."""
    now = select(Device.fingerprint_digest).where(Device.name == Conditions.device).correlate(Conditions)
    stale: ColumnElement[bool] = now.where(Device.fingerprint_digest != Conditions.fingerprint_digest).exists()
    return stale


def _figures_of(device: str, metric: str, digests: list[str], provenances: Collection[Provenance]) -> Any:
    stale = is_stale().label("is_stale")
    query = (
        select(
            Workload.digest,
            Measurement.id,
            Measurement.conditions_id,
            Measurement.median,
            Measurement.lower_quartile,
            Measurement.upper_quartile,
            Measurement.count.label("values_count"),
            Measurement.provenance,
            Measurement.created_at,
            stale,
        )
        .join_from(Workload, Measurement)
        .join(Conditions)
        .where(Workload.digest.in_(digests), Conditions.device == device, Measurement.metric == metric)
        .order_by(stale.desc(), Measurement.created_at, Measurement.id)
    )
    return query.where(Measurement.provenance.in_([str(one) for one in provenances])) if provenances else query


def _match_protocols(
    session: Session, ids: Collection[int], wanted: Mapping[str, Any], fitting: dict[int, bool]
) -> None:
    for chunk in in_chunks(ids):
        for number, told in session.execute(select(Conditions.id, Conditions.protocol).where(Conditions.id.in_(chunk))):
            fitting[number] = all(told.get(key) == value for key, value in wanted.items())


def _figures(row: Row[Any]) -> Figures:
    return Figures(
        median=row.median,
        lower_quartile=row.lower_quartile,
        upper_quartile=row.upper_quartile,
        count=row.values_count,
        provenance=Provenance(row.provenance),
        is_stale=bool(row.is_stale),
        conditions_id=row.conditions_id,
        measurement_id=row.id,
        created_at=row.created_at,
    )


@dataclass(frozen=True, slots=True)
class Filters:
    """Which measurements are wanted; what is None or empty leaves all."""

    device: str | None = None
    metric: str | None = None
    kind: str | None = None
    provenance: str | None = None
    workloads: tuple[str, ...] = ()
    stale: bool | None = None
    import_id: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "workloads": list(self.workloads)}


@dataclass(frozen=True, slots=True)
class Found:
    """A measurement with all that it is of."""

    measurement: Measurement
    workload: Workload
    conditions: Conditions
    is_stale: bool


def list_measurements(
    session: Session,
    filters: Filters,
    *,
    limit: int,
    before: int | None = None,
    after: int | None = None,
    with_samples: bool = False,
) -> list[Found]:
    """The newest first, before the id of the last one already seen; or, after an id, the oldest first."""
    query = select(Measurement, Workload, Conditions, is_stale()).join_from(Measurement, Workload).join(Conditions)
    query = query.where(*_conditions_of(filters)).limit(limit)
    if after is None:
        query = query.order_by(Measurement.id.desc())
    else:
        query = query.where(Measurement.id > after).order_by(Measurement.id)
    if before is not None:
        query = query.where(Measurement.id < before)
    if not with_samples:
        query = query.options(defer(Measurement.samples, raiseload=True))
    return [Found(*row) for row in session.execute(query)]


def _conditions_of(filters: Filters) -> list[ColumnElement[bool]]:
    wanted: list[ColumnElement[bool]] = []
    for column, value in (
        (Conditions.device, filters.device),
        (Measurement.metric, filters.metric),
        (Workload.kind, filters.kind),
        (Measurement.provenance, filters.provenance),
        (Measurement.import_id, filters.import_id),
    ):
        if value is not None:
            wanted.append(column == value)
    if filters.workloads:
        wanted.append(Workload.digest.in_(filters.workloads))
    if filters.stale is not None:
        wanted.append(is_stale() if filters.stale else ~is_stale())
    return wanted
