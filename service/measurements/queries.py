"""Reads measurements: what is known of a network's workloads on a device, and listings."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, func, select
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
    protocol: Mapping[str, Any]
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
    fitting = _fitting(session, device, protocol, allow_stale)
    for stale_ones in (False, True):  # what is stale only where nothing else is
        conditions = [number for number, one in fitting.items() if one.is_stale is stale_ones]
        lacking = [digest for digest in dict.fromkeys(digests) if digest not in found]
        for digest, row in _newest(session, lacking, metric, provenances, conditions).items():
            found[digest] = _figures(row, fitting[row.conditions_id])
    return found


def usual_protocol(session: Session, device: str, batch: int | None, threads: int | None) -> dict[str, int]:
    """Batch and threads of the figures that are meant: as asked for, else the device's own; 1 of an unknown device."""
    row = session.get(Device, device)
    own = {} if row is None else row.capabilities
    return {
        "batch": int(own.get("batch", 1)) if batch is None else batch,
        "threads": int(own.get("threads", 1)) if threads is None else threads,
    }


def is_stale() -> ColumnElement[bool]:
    """Of a row's `Conditions`: its device has another fingerprint now. Of a device that never was announced: no."""
    now = select(Device.fingerprint_digest).where(Device.name == Conditions.device).correlate(Conditions)
    stale: ColumnElement[bool] = now.where(Device.fingerprint_digest != Conditions.fingerprint_digest).exists()
    return stale


@dataclass(frozen=True, slots=True)
class _Fitting:
    """Conditions that will do."""

    is_stale: bool
    protocol: Mapping[str, Any]


def _fitting(session: Session, device: str, wanted: Mapping[str, Any], allow_stale: bool) -> dict[int, _Fitting]:
    """Those of a device, by id."""
    query = select(Conditions.id, Conditions.protocol, is_stale().label("is_stale")).where(Conditions.device == device)
    return {
        row.id: _Fitting(bool(row.is_stale), row.protocol)
        for row in session.execute(query if allow_stale else query.where(~is_stale()))
        if all(row.protocol.get(key) == value for key, value in wanted.items())
    }


def _newest(
    session: Session,
    digests: Collection[str],
    metric: str,
    provenances: Collection[Provenance],
    conditions: Collection[int],
) -> dict[str, Any]:
    """The newest row of each workload under any of the conditions, by digest."""
    query = _newest_of(any_provenance=not provenances)
    wanted = {"metric": metric, **({"provenances": [str(one) for one in provenances]} if provenances else {})}
    found: dict[str, Any] = {}
    for some in in_chunks(digests):
        for under in in_chunks(conditions):
            for row in session.execute(query, {"digests": some, "conditions": under, **wanted}):
                known = found.get(row.digest)
                if known is None or (known.created_at, known.id) < (row.created_at, row.id):
                    found[row.digest] = row
    return found


@cache  # to build it takes as long as the database takes to answer
def _newest_of(*, any_provenance: bool) -> Select[Any]:
    """Of `digests`, a `metric`, `conditions` and `provenances`, which are bound when it is executed."""
    newest_first = (Measurement.created_at.desc(), Measurement.id.desc())
    ranked = (
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
            func.row_number().over(partition_by=Measurement.workload_id, order_by=newest_first).label("place"),
        )
        .join_from(Workload, Measurement, Measurement.workload_id == Workload.id)
        .where(Workload.digest.in_(bindparam("digests", expanding=True)))
        .where(Measurement.metric == bindparam("metric"))
        # A sum is in no index: what is known of the workloads is looked through, not all that is of the device.
        .where((Measurement.conditions_id + 0).in_(bindparam("conditions", expanding=True)))
    )
    if not any_provenance:
        ranked = ranked.where(Measurement.provenance.in_(bindparam("provenances", expanding=True)))
    rows = ranked.subquery()
    return select(rows).where(rows.c.place == 1)


def _figures(row: Any, under: _Fitting) -> Figures:
    return Figures(
        median=row.median,
        lower_quartile=row.lower_quartile,
        upper_quartile=row.upper_quartile,
        count=row.values_count,
        provenance=Provenance(row.provenance),
        is_stale=under.is_stale,
        protocol=under.protocol,
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
    if session.scalars(_ids_of_conditions(filters).limit(1)).first() is None:
        return []  # not by looking at every measurement
    query = (
        select(Measurement, Workload, Conditions, is_stale())
        .join_from(Measurement, Workload, Measurement.workload_id == Workload.id)
        .join(Conditions, Measurement.conditions_id == Conditions.id)
    )
    query = query.where(*_wanted(filters)).limit(limit)
    if after is None:
        query = query.order_by(Measurement.id.desc())
    else:
        query = query.where(Measurement.id > after).order_by(Measurement.id)
    if before is not None:
        query = query.where(Measurement.id < before)
    if not with_samples:
        query = query.options(defer(Measurement.samples, raiseload=True))
    return [Found(*row) for row in session.execute(query)]


def _wanted(filters: Filters) -> list[ColumnElement[bool]]:
    wanted: list[ColumnElement[bool]] = []
    for column, value in (
        (Measurement.metric, filters.metric),
        (Workload.kind, filters.kind),
        (Measurement.provenance, filters.provenance),
        (Measurement.import_id, filters.import_id),
    ):
        if value is not None:
            wanted.append(column == value)
    if filters.workloads:
        wanted.append(Workload.digest.in_(filters.workloads))
    if filters.device is not None or filters.stale is not None:
        # A sum is in no index: rows are looked at in the order that they are listed in, and not all of them sorted.
        wanted.append((Measurement.conditions_id + 0).in_(_ids_of_conditions(filters)))
    return wanted


def _ids_of_conditions(filters: Filters) -> Select[int]:
    query = select(Conditions.id)
    if filters.device is not None:
        query = query.where(Conditions.device == filters.device)
    if filters.stale is not None:
        query = query.where(is_stale() if filters.stale else ~is_stale())
    return query
