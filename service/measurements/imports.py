"""A table of figures that somebody hands over becomes rows: all of them, or none and what is wrong.

Reading, checking and storing take seconds for a million rows; callers do it outside of the event loop.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from search_spaces.costs import WorkloadKind
from search_spaces.faults import Fault
from search_spaces.objectives import Metric, Provenance
from search_spaces.signatures import NetworkSignature, Work, read_signature, work_of
from service.db import insert_once, reading
from service.devices.queries import list_devices
from service.errors import InvalidRequestError
from service.measurements.actions import (
    find_or_add_conditions,
    find_or_add_workloads,
    in_chunks,
)
from service.measurements.bulk import COLUMNS, insert_measurements
from service.measurements.chunk import Chunk
from service.measurements.collected import Collected
from service.measurements.collecting import METRICS, ORIGINS, collect
from service.measurements.columns import ABSENT, NO_TIME
from service.measurements.conditions import conditions_digest, digest_of
from service.measurements.faults import RowFaults, refuse_table
from service.measurements.flat_reading import MOST_ROWS, MOST_ROWS_ON_SQLITE, open_flat
from service.measurements.plausibility import (
    at_batch,
    check_against_known,
    check_values,
    network_work,
    per_work,
    work_array,
)
from service.measurements.public_tables import open_public
from service.measurements.table_conditions import unknown_device
from service.measurements.table_settings import TableFormat, TableSettings
from service.models import Conditions, Measurement, MeasurementImport, Workload, utc_now

_KNOWN_ROWS = 1_000
_PIECE_BYTES = 2**20
_PUBLIC = (TableFormat.HAQ, TableFormat.PROXYLESS, TableFormat.APQ)


@dataclass(frozen=True)
class _Table:
    """What a file holds, in columns."""

    collected: Collected
    figures: Chunk
    batch: np.ndarray

    @property
    def count(self) -> int:
        return len(self.figures.row)


def import_table(engine: Engine, file: BinaryIO, filename: str, settings: TableSettings) -> MeasurementImport:
    """Store all figures of a file. The same file with the same settings is the same import, and is stored once.

    Unless a device that it is of has another fingerprint by then: the same rows are then figures of the device as it
    is now.

    Args:
        engine: of the database.
        file: can be read from its beginning and sought in.
        filename: for people.
        settings: what the file does not say.

    Raises:
        InvalidTableError: something is wrong with the file or what is said of it; nothing is stored.
    """
    file_digest = _digest(file)
    with reading(engine) as session:
        devices = _known_devices(session)
    _check_device(settings, devices)
    table = _read(file, settings, devices, MOST_ROWS_ON_SQLITE if engine.dialect.name == "sqlite" else MOST_ROWS)
    digest = _import_digest(file_digest, settings, table.collected)
    with reading(engine) as session:
        earlier = _find(session, digest)
        if earlier is not None:
            return earlier
        unchecked = _check(session, table)

    def add(session: Session) -> MeasurementImport:
        return _find(session, digest) or _store(session, table, digest, filename, unchecked)

    return insert_once(engine, add)


def _known_devices(session: Session) -> dict[str, Mapping[str, Any]]:
    """Present fingerprint of each device that was announced, or that there are figures of."""
    of_figures: dict[str, Mapping[str, Any]] = {
        name: {} for name in session.scalars(select(Conditions.device).distinct())
    }
    return of_figures | {row.name: row.capabilities.get("fingerprint", {}) for row in list_devices(session)}


def _check_device(settings: TableSettings, devices: Collection[str]) -> None:
    """Of the whole file at once, where its rows need not be looked at."""
    if settings.device is not None and settings.device not in devices and not settings.new_device:
        raise refuse_table(
            "the device is not known", Fault("/settings/device", unknown_device(settings.device, devices))
        )


def _digest(file: BinaryIO) -> str:
    file.seek(0)
    hashed = hashlib.sha256()
    while piece := file.read(_PIECE_BYTES):
        hashed.update(piece)
    if not file.tell():
        raise InvalidRequestError("the file is empty")
    file.seek(0)
    return hashed.hexdigest()


def _import_digest(file_digest: str, settings: TableSettings, collected: Collected) -> str:
    """Of all that a file is taken to say; the fingerprints of its devices are part of the conditions."""
    said = settings.model_dump(mode="json", exclude_defaults=True)
    conditions = sorted(conditions_digest(*one) for one in collected.conditions)
    return digest_of({"file": file_digest, "settings": said, "conditions": conditions})


def _find(session: Session, digest: str) -> MeasurementImport | None:
    return session.scalars(select(MeasurementImport).where(MeasurementImport.digest == digest)).one_or_none()


def _read(file: BinaryIO, settings: TableSettings, devices: Mapping[str, Mapping[str, Any]], most_rows: int) -> _Table:
    collected = Collected(devices, settings)
    is_public = settings.format in _PUBLIC
    flat = open_public(file, settings) if is_public else open_flat(file, settings, collected.faults, most_rows)
    collect(flat, collected)
    collected.faults.refuse(collected.row_count)
    if not collected.row_count:
        raise refuse_table("there are no rows")
    if settings.device is not None and settings.device not in {name for name, _, _ in collected.conditions}:
        fault = Fault("/settings/device", "every row names its own device; leave this out, or the column")
        raise refuse_table("the file is of other devices", fault)
    figures = Chunk.joined(collected.chunks)
    _check_duplicates(figures, collected)
    batches = [_batch_of(protocol) for _, _, protocol in collected.conditions]
    return _Table(collected, figures, np.array(batches, np.float64)[figures.conditions])


def _batch_of(protocol: Mapping[str, Any]) -> float:
    found = protocol.get("batch", 1)
    return float(found) if isinstance(found, int) and 1 <= found < 2**31 else 1.0


def _check_duplicates(figures: Chunk, collected: Collected) -> None:
    """The same metric of the same workload under the same conditions is told once, unless at different times."""
    keys = np.stack([figures.workload, figures.conditions, figures.metric, figures.measured_us], axis=1)
    order = np.lexsort(keys.T)
    ordered = keys[order]
    same = np.flatnonzero((ordered[1:] == ordered[:-1]).all(axis=1))
    if len(same):
        rows = figures.row[order]
        later, earlier = rows[same + 1], rows[same]
        by_row = np.argsort(later, kind="stable")
        message = "the same workload, conditions and metric as in row {}; keep one"
        collected.faults.add(later[by_row], "workload", message, earlier[by_row][:20].tolist())
        collected.faults.refuse(collected.row_count)


def _check(session: Session, table: _Table) -> int:
    """Whether values can be what they say; returns how many could not be compared with anything."""
    works = at_batch(_works(session, table.collected)[table.figures.workload], table.batch)
    faults, figures = table.collected.faults, table.figures
    for index, metric in enumerate(METRICS):
        rows = np.flatnonzero(figures.metric == index)
        if len(rows):
            check_values(metric, figures.row[rows], figures.median[rows], works[rows], faults)
            for device, here in _by_device(table, rows):
                known = _known_per_work(session, device, metric)
                check_against_known(metric, device, per_work(figures.median[here], works[here]), known)
    faults.refuse(table.collected.row_count)
    is_memory = figures.metric == METRICS.index(Metric.MEMORY_BYTES)
    return int(np.count_nonzero(np.isnan(works[:, 0]) | is_memory))


def _works(session: Session, collected: Collected) -> np.ndarray:
    """(workloads, 3) see `work_array`; NaN where nobody knows."""
    read = [None if parts is None else work_of(parts) for parts in collected.parts]
    known: dict[str, Work | None] = {
        digest: work for (_, digest, _), work in zip(collected.workloads, read, strict=True) if work is not None
    }
    networks = {index: parts for index, parts in enumerate(collected.parts) if isinstance(parts, NetworkSignature)}
    wanted = {digest for parts in networks.values() for digest in parts.operators}
    unsigned = {digest for (_, digest, signature) in collected.workloads if not signature}
    known |= _stored_works(session, sorted((wanted | unsigned) - known.keys()))
    for index, (_, digest, _) in enumerate(collected.workloads):
        read[index] = known.get(digest, read[index])
    for index, parts in networks.items():
        read[index] = network_work(parts.operators, known)
    return work_array(read)


def _stored_works(session: Session, digests: Sequence[str]) -> dict[str, Work | None]:
    found: dict[str, Work | None] = {}
    for chunk in in_chunks(digests):
        query = select(Workload.digest, Workload.signature).where(Workload.digest.in_(chunk), Workload.signature != "")
        found.update((digest, work_of(read_signature(text).parts)) for digest, text in session.execute(query))
    return found


def _by_device(table: _Table, rows: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Indices of figures, device by device."""
    names, code_of = np.unique([name for name, _, _ in table.collected.conditions], return_inverse=True)
    codes = code_of[table.figures.conditions[rows]]
    order = np.argsort(codes, kind="stable")
    found, begins = np.unique(codes[order], return_index=True)
    yield from zip(names[found].tolist(), np.split(rows[order], begins[1:]), strict=True)


def _known_per_work(session: Session, device: str, metric: Metric) -> np.ndarray:
    """Figures of operators and the like that the service has of a device, by their work."""
    query = (
        select(Measurement.median, Workload.signature, Conditions.protocol)
        .join_from(Measurement, Workload, Measurement.workload_id == Workload.id)
        .join(Conditions, Measurement.conditions_id == Conditions.id)
        .where(Conditions.device == device, Measurement.metric == str(metric))
        .where(Workload.kind != str(WorkloadKind.NETWORK), Workload.signature != "")
        .limit(_KNOWN_ROWS)
    )
    found = session.execute(query).all()
    works = work_array([work_of(read_signature(row.signature).parts) for row in found])
    batches = np.array([_batch_of(row.protocol) for row in found])
    return per_work(np.array([row.median for row in found]), at_batch(works, batches))


def _store(session: Session, table: _Table, digest: str, filename: str, unchecked: int) -> MeasurementImport:
    collected = table.collected
    workload_ids = _workload_ids(session, collected)
    stated = {conditions_digest(*one): one for one in collected.conditions}
    by_digest = find_or_add_conditions(session, stated)
    conditions_ids = np.array([by_digest[one] for one in stated], np.int64)
    report = {
        "rows": collected.row_count,
        "measurements": table.count,
        "workloads": len(collected.workloads),
        "conditions": len(collected.conditions),
        "unchecked": unchecked,
    }
    row = MeasurementImport(id=str(uuid.uuid4()), digest=digest, filename=filename, report=report)
    session.add(row)
    session.flush()
    insert_measurements(session, _as_rows(table.figures, workload_ids, conditions_ids, row.id))
    return row


def _workload_ids(session: Session, collected: Collected) -> np.ndarray:
    """(workloads,) ids; those of which nobody knows more than a digest are refused."""
    keys = collected.keys()
    unknown = [digest for kind, digest, _ in collected.workloads if kind is None]
    ids = find_or_add_workloads(session, keys) | _find_ids(session, unknown)
    missing = [index for index, (_, digest, _) in enumerate(collected.workloads) if digest not in ids]
    if missing:
        faults = RowFaults()
        rows = np.array([collected.first_rows[index] for index in missing])
        faults.add(rows, "workload_digest", "no workload of this digest is known; give its signature in `workload`")
        faults.refuse(collected.row_count)
    return np.array([ids[digest] for _, digest, _ in collected.workloads], np.int64)


def _find_ids(session: Session, digests: Sequence[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for chunk in in_chunks(digests):
        rows = session.execute(select(Workload.digest, Workload.id).where(Workload.digest.in_(chunk)))
        found.update((digest, number) for digest, number in rows)
    return found


def _as_rows(figures: Chunk, workload_ids: np.ndarray, conditions_ids: np.ndarray, import_id: str) -> pa.Table:
    now_us = int(utc_now().timestamp() * 1e6)
    measured_us = np.where(figures.measured_us == NO_TIME, now_us, figures.measured_us)
    count = len(figures.row)
    columns = {
        "workload_id": workload_ids[figures.workload],
        "conditions_id": conditions_ids[figures.conditions],
        "metric": _words(METRICS, figures.metric),
        "median": figures.median,
        "lower_quartile": figures.lower_quartile,
        "upper_quartile": figures.upper_quartile,
        "count": figures.count,
        "samples": pa.array(figures.samples, pa.string()),
        "anchor_ratio": pa.array(figures.anchor_ratio, from_pandas=True),
        "provenance": _words((Provenance.IMPORTED,), np.zeros(count, np.int64)),
        "origin": _words(ORIGINS, figures.origin),
        "import_id": _words((import_id,), np.zeros(count, np.int64)),
        "created_at": pa.array(measured_us, pa.int64()).cast(pa.timestamp("us", tz="UTC")),
    }
    return pa.table({name: columns[name] for name in COLUMNS})


def _words(words: Sequence[str], codes: np.ndarray) -> Any:
    return pa.array([str(word) for word in words]).take(pa.array(codes, mask=codes == ABSENT))
