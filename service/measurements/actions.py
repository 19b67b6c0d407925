"""Measurements come in from workers: many rows at once, each with what it is of and how it was taken.

The caller commits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from search_spaces.costs import WorkloadKind
from search_spaces.objectives import Provenance
from service.measurements.conditions import conditions_digest, digest_of
from service.models import Conditions, Measurement, Workload

Item = TypeVar("Item")
MOST_PARAMETERS = 5_000
"""Of one statement: fewer than any database allows."""


class WorkloadKey(NamedTuple):
    """A workload as it is stored: `search_spaces.costs.Workload` without the name that it has somewhere."""

    kind: WorkloadKind
    digest: str
    signature: str


@dataclass(frozen=True)
class NewMeasurement:
    """A measurement that is to be stored; see `service.models.Measurement` and `Conditions`.

    Attributes:
        operators: of a network, so that its signature can be read.
    """

    workload: WorkloadKey
    device: str
    fingerprint: Mapping[str, Any]
    protocol: Mapping[str, Any]
    metric: str
    median: float
    lower_quartile: float
    upper_quartile: float
    count: int
    samples: Sequence[float]
    anchor_ratio: float | None
    provenance: Provenance
    operators: tuple[WorkloadKey, ...] = ()


def measurement_from_json(found: Mapping[str, Any]) -> NewMeasurement:
    """What a worker has put into the details of a trial, see `workers.appraise.measure`."""
    return NewMeasurement(
        workload=_key_from_json(found["workload"]),
        device=found["device"],
        fingerprint=found["fingerprint"],
        protocol=found["protocol"],
        metric=found["metric"],
        median=found["median"],
        lower_quartile=found["lower_quartile"],
        upper_quartile=found["upper_quartile"],
        count=found["count"],
        samples=tuple(found["samples"]),
        anchor_ratio=found["anchor_ratio"],
        provenance=Provenance(found["provenance"]),
        operators=tuple(map(_key_from_json, found["operators"])),
    )


def _key_from_json(workload: Mapping[str, str]) -> WorkloadKey:
    return WorkloadKey(WorkloadKind(workload["kind"]), workload["digest"], workload["signature"])


def record(session: Session, rows: Sequence[NewMeasurement], *, trial_id: int | None = None) -> None:
    """Store measurements, with the workloads and conditions that are new.

    Raises:
        sqlalchemy.exc.IntegrityError: the trial has one of these metrics already.
    """
    if not rows:
        return
    keys = (key for row in rows for key in (row.workload, *row.operators))
    workload_ids = find_or_add_workloads(session, {key.digest: key for key in keys})
    stated = {_conditions_digest(row): row for row in rows}
    conditions_ids = find_or_add_conditions(
        session, {digest: (row.device, row.fingerprint, row.protocol) for digest, row in stated.items()}
    )
    values = [
        {
            "workload_id": workload_ids[row.workload.digest],
            "conditions_id": conditions_ids[_conditions_digest(row)],
            "metric": str(row.metric),
            "median": row.median,
            "lower_quartile": row.lower_quartile,
            "upper_quartile": row.upper_quartile,
            "count": row.count,
            "samples": list(row.samples),
            "anchor_ratio": row.anchor_ratio,
            "provenance": str(row.provenance),
            "trial_id": trial_id,
        }
        for row in rows
    ]
    session.execute(insert(Measurement), values)


def find_or_add_workloads(session: Session, wanted: Mapping[str, WorkloadKey]) -> dict[str, int]:
    """Ids by digest; those that are new are added, and those known by a digest alone get the signature told now."""
    rows = {
        digest: {"digest": digest, "kind": str(key.kind), "signature": key.signature} for digest, key in wanted.items()
    }
    ids = _find_or_add(session, Workload, rows)
    _fill_in(session, {digest: row for digest, row in rows.items() if row["signature"]})
    return ids


def _fill_in(session: Session, rows: Mapping[str, Mapping[str, Any]]) -> None:
    for chunk in in_chunks(sorted(rows)):
        bare = select(Workload.digest).where(Workload.digest.in_(chunk), Workload.signature == "")
        for digest in session.scalars(bare.order_by(Workload.digest)).all():
            # A kind that came with a digest was somebody's word; the signature says it by itself.
            session.execute(
                update(Workload).where(Workload.digest == digest, Workload.signature == "").values(**rows[digest])
            )


Stated = tuple[str, Mapping[str, Any], Mapping[str, Any]]
"""Device, fingerprint, protocol."""


def find_or_add_conditions(session: Session, wanted: Mapping[str, Stated]) -> dict[str, int]:
    """Ids by digest; those that are new are added."""
    rows = {
        digest: {
            "digest": digest,
            "device": device,
            "fingerprint_digest": digest_of(dict(fingerprint)),
            "fingerprint": dict(fingerprint),
            "protocol": dict(protocol),
        }
        for digest, (device, fingerprint, protocol) in wanted.items()
    }
    return _find_or_add(session, Conditions, rows)


def in_chunks(items: Iterable[Item], size: int = MOST_PARAMETERS) -> Iterator[list[Item]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _find_or_add(session: Session, model: Any, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    found = _ids(session, model, rows)
    # In the order of the digests, so that no two transactions wait for each other.
    missing = [rows[digest] for digest in sorted(rows.keys() - found.keys())]
    if not missing:
        return found
    if session.get_bind().dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as insert_row
    else:
        from sqlalchemy.dialects.sqlite import insert as insert_row  # type: ignore[assignment]
    # Another transaction may be adding the same just now.
    session.execute(insert_row(model.__table__).on_conflict_do_nothing(index_elements=["digest"]), missing)
    return found | _ids(session, model, [row["digest"] for row in missing])


def _ids(session: Session, model: Any, digests: Collection[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for chunk in in_chunks(digests):
        rows = session.execute(select(model.digest, model.id).where(model.digest.in_(chunk)))
        found.update((digest, number) for digest, number in rows)
    return found


def _conditions_digest(row: NewMeasurement) -> str:
    return conditions_digest(row.device, row.fingerprint, row.protocol)
