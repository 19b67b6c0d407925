"""Measurements as the API shows them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from search_spaces.costs import WorkloadKind
from search_spaces.objectives import Metric, Provenance
from search_spaces.spec import Name
from service.measurements.queries import Figures, Found
from service.models import MeasurementImport

DeviceMetric = Literal[Metric.LATENCY_S, Metric.ENERGY_J, Metric.MEMORY_BYTES]


class WorkloadBody(BaseModel):
    """What was measured. `signature` is canonical JSON, whose SHA-256 is the digest; empty where nobody knows it."""

    kind: WorkloadKind
    digest: str
    signature: str


class ConditionsBody(BaseModel):
    """What figures must share to be compared."""

    device: str
    fingerprint: dict[str, Any]
    protocol: dict[str, Any]


class MeasurementBody(BaseModel):
    """Statistics of one metric, in its own unit.

    `stale`: the device has another fingerprint now, and this is not used unless somebody asks for it. `origin` is of an
    imported figure what it was where it comes from. `samples` are there when they are asked for.
    """

    id: int
    metric: str
    median: float
    lower_quartile: float
    upper_quartile: float
    count: int
    anchor_ratio: float | None
    provenance: Provenance
    origin: Provenance | None
    stale: bool
    workload: WorkloadBody
    conditions: ConditionsBody
    import_id: str | None
    measured_at: datetime
    samples: list[float] | None


class MeasurementPage(BaseModel):
    items: list[MeasurementBody]
    next_page_token: str | None


class ImportBody(BaseModel):
    """What a table has brought.

    `rows` are those of the file, `measurements` what they hold; `workloads` and `conditions` are distinct ones;
    `unchecked` measurements could not be compared with the work that they are of, since it is not known.
    """

    id: str
    filename: str
    rows: int
    measurements: int
    workloads: int
    conditions: int
    unchecked: int
    created_at: datetime


class MissingBody(BaseModel):
    """A workload of a network that nothing is known of; `nodes` are the network's nodes that mean it."""

    kind: WorkloadKind
    digest: str
    signature: str
    nodes: list[str]


class CoverageBody(BaseModel):
    """How much of a network is known on a device, at this batch and with these threads.

    Nothing is filled in for what is missing.

    `workloads` are distinct operators; `found` by the kind that they were found as: operators themselves, the layers
    that they begin with, or the blocks that they are part of. `whole_network` says whether the network was measured as
    a whole. `stale` were found, but only under another fingerprint, and count as missing unless those are allowed.
    """

    device: str
    metric: str
    batch: int
    threads: int
    network: str
    workloads: int
    found: dict[WorkloadKind, int]
    whole_network: bool
    stale: int
    missing: list[MissingBody]


MOST_LOOKED_UP = 5_000


class LookupRequest(BaseModel):
    """What is asked of a device's table: figures of one metric, for workloads by their digests."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: Name
    metric: DeviceMetric = Metric.LATENCY_S
    workloads: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...] = Field(max_length=MOST_LOOKED_UP)
    batch: int | None = Field(default=None, ge=1, le=2**31 - 1)
    threads: int | None = Field(default=None, ge=1, le=2**31 - 1)
    allow_stale: bool = False


class FiguresBody(BaseModel):
    """The newest figure of a workload, in the metric's own unit; `runtime` where the protocol tells one."""

    median: float
    lower_quartile: float
    upper_quartile: float
    count: int
    provenance: Provenance
    stale: bool
    batch: int
    threads: int
    runtime: str | None
    measured_at: datetime


class LookupBody(BaseModel):
    """Figures by digest; `missing` are the workloads that have none. Nothing is filled in."""

    device: str
    metric: str
    found: dict[str, FiguresBody]
    missing: list[str]


def measurement_body(found: Found, *, with_samples: bool) -> MeasurementBody:
    row, workload, conditions = found.measurement, found.workload, found.conditions
    return MeasurementBody(
        id=row.id,
        metric=row.metric,
        median=row.median,
        lower_quartile=row.lower_quartile,
        upper_quartile=row.upper_quartile,
        count=row.count,
        anchor_ratio=row.anchor_ratio,
        provenance=Provenance(row.provenance),
        origin=None if row.origin is None else Provenance(row.origin),
        stale=found.is_stale,
        workload=WorkloadBody(kind=WorkloadKind(workload.kind), digest=workload.digest, signature=workload.signature),
        conditions=ConditionsBody(
            device=conditions.device, fingerprint=conditions.fingerprint, protocol=conditions.protocol
        ),
        import_id=row.import_id,
        measured_at=row.created_at,
        samples=row.samples if with_samples else None,
    )


def lookup_body(request: LookupRequest, known: Mapping[str, Figures]) -> LookupBody:
    found = {digest: _figures_body(figures) for digest, figures in known.items()}
    missing = [digest for digest in dict.fromkeys(request.workloads) if digest not in known]
    return LookupBody(device=request.device, metric=request.metric, found=found, missing=missing)


def _figures_body(figures: Figures) -> FiguresBody:
    runtime = figures.protocol.get("runtime")
    return FiguresBody(
        median=figures.median,
        lower_quartile=figures.lower_quartile,
        upper_quartile=figures.upper_quartile,
        count=figures.count,
        provenance=figures.provenance,
        stale=figures.is_stale,
        batch=figures.protocol["batch"],
        threads=figures.protocol["threads"],
        runtime=None if runtime is None else str(runtime),
        measured_at=figures.created_at,
    )


def import_body(row: MeasurementImport) -> ImportBody:
    return ImportBody(id=row.id, filename=row.filename, created_at=row.created_at, **row.report)
