"""Measurements over HTTP: listed, handed out and handed over as tables, and compared with what a network needs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, File, Form, Query, UploadFile
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError
from sqlalchemy import Engine
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from search_spaces.costs import WorkloadKind
from search_spaces.faults import Fault
from search_spaces.network import Network, in_precision, network_from_json
from search_spaces.objectives import Metric, Provenance
from search_spaces.precision import FP32, parse_precision
from search_spaces.refusals import plain_faults
from search_spaces.spec import Family
from search_spaces.tables.networks import catalog_network
from service.db import reading
from service.edge import EngineDep, NameInQuery, PageSize, PageToken
from service.errors import InvalidPageTokenError, InvalidRequestError, NotFoundError
from service.measurements.coverage import Coverage, cover
from service.measurements.queries import Filters, list_measurements, lookup, usual_protocol
from service.measurements.schemas import (
    CoverageBody,
    DeviceMetric,
    ImportBody,
    LookupBody,
    LookupRequest,
    MeasurementPage,
    MissingBody,
    import_body,
    lookup_body,
    measurement_body,
)
from service.measurements.table_settings import TableFormat, TableSettings
from service.models import Device
from service.networks.queries import get_network
from service.paging import clamp_page_size, decode_token, encode_token
from service.uploads import plain_name

router = APIRouter(prefix="/measurements", tags=["measurements"])

MOST_WORKLOADS = 200
_DIGEST = r"^[0-9a-f]{64}$"
_ID = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
Digests = Annotated[
    list[Annotated[str, Field(pattern=_DIGEST)]] | None,
    Query(max_length=MOST_WORKLOADS, description=f"digests of workloads, at most {MOST_WORKLOADS} at once"),
]


def read_filters(
    device: NameInQuery = None,
    metric: DeviceMetric | None = None,
    kind: WorkloadKind | None = None,
    provenance: Provenance | None = None,
    workload: Digests = None,
    stale: bool | None = None,
    import_id: Annotated[str | None, Query(pattern=_ID)] = None,
) -> Filters:
    return Filters(device, metric, kind, provenance, tuple(workload or ()), stale, import_id)


FiltersDep = Annotated[Filters, Depends(read_filters)]


@router.get("")
def read_measurements(
    engine: EngineDep,
    filters: FiltersDep,
    samples: bool = False,
    page_size: PageSize = None,
    page_token: PageToken = None,
) -> MeasurementPage:
    """List figures, the newest first: each with where it comes from, its conditions, and whether it is stale."""
    told = filters.to_json()
    before = None if page_token is None else _position(decode_token(page_token, told))
    limit = clamp_page_size(page_size)
    with reading(engine) as session:
        found = list_measurements(session, filters, limit=limit + 1, before=before, with_samples=samples)
        items = [measurement_body(one, with_samples=samples) for one in found[:limit]]
    token = encode_token({"id": items[-1].id}, told) if len(found) > limit else None
    return MeasurementPage(items=items, next_page_token=token)


@router.post("/lookup")
def look_up_measurements(engine: EngineDep, request: LookupRequest) -> LookupBody:
    """Tell the newest figures of many workloads on one device; what has none is named.

    Without `batch` or `threads` they are the device's own, or 1 of a device that no worker has announced.
    """
    asked, metric = request.workloads, request.metric
    with reading(engine) as session:
        protocol = usual_protocol(session, request.device, request.batch, request.threads)
        known = lookup(session, request.device, asked, metric, protocol=protocol, allow_stale=request.allow_stale)
    return lookup_body(request, known)


@router.get("/export", response_class=StreamingResponse)
def export_measurements(
    engine: EngineDep, filters: FiltersDep, format: Literal["csv", "parquet"] = "csv"
) -> StreamingResponse:
    """Hand out figures as a table that can be imported elsewhere, as it is read."""
    from service.measurements.flat_export import export_table  # pyarrow is large, and most requests have no table

    pieces: Iterator[bytes] = export_table(engine, filters, TableFormat(format))
    media_type = "text/csv; charset=utf-8" if format == "csv" else "application/vnd.apache.parquet"
    headers = {"Content-Disposition": f'attachment; filename="measurements.{format}"'}
    return StreamingResponse(pieces, media_type=media_type, headers=headers)


@router.post("/import", status_code=201)
async def import_measurements(
    engine: EngineDep,
    file: Annotated[UploadFile, File(description="a table; docs/measurements.md describes the formats")],
    settings: Annotated[str, Form(max_length=2**16, description="a JSON object; see TableSettings")] = "{}",
) -> ImportBody:
    """Hand over a table of figures. All of it is stored, or nothing, with what is wrong by row.

    The same file with the same settings is stored once, and answered alike.
    """
    wanted = parse_settings(settings)
    return await run_in_threadpool(_import, engine, file, wanted)


class CoverageQuery(BaseModel):
    """A network, imported (`network`) or of the catalog (`family` and the rest), and what its figures must be."""

    model_config = ConfigDict(extra="forbid")

    device: Annotated[str, Field(max_length=100)]
    metric: DeviceMetric = Metric.LATENCY_S
    network: Annotated[str, Field(max_length=100)] | None = None
    family: Family | None = None
    width: FiniteFloat = Field(default=1.0, gt=0.0, le=4.0)
    input: Annotated[str, Field(pattern=r"^[0-9]{1,4},[0-9]{1,4},[0-9]{1,4}$")] | None = None
    stem_stride: int | None = Field(default=None, ge=1, le=2)
    classes: Annotated[int, Field(ge=1, le=100_000)] = 1000
    precision: Annotated[str, Field(pattern=r"^(fp32|w[0-9]{1,2}a[0-9]{1,2})$")] = str(FP32)
    batch: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    threads: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    allow_stale: bool = False


@router.get("/coverage")
def read_coverage(engine: EngineDep, query: Annotated[CoverageQuery, Query()]) -> CoverageBody:
    """Name every workload of a network that nothing is known of on a device. What is missing is never made up.

    Without `batch` or `threads` they are the device's own, or 1 of a device that no worker has announced.
    """
    with reading(engine) as session:
        network = _network(session, query)
        protocol = usual_protocol(session, query.device, query.batch, query.threads)
        found = cover(session, network, query.device, query.metric, protocol, allow_stale=query.allow_stale)
        if len(found.missing) == found.workloads and not found.whole_network:
            _check_known(session, query.device)
    return _coverage_body(found, query, network.name, protocol)


def parse_settings(text: str) -> TableSettings:
    """Raises `InvalidRequestError` with a pointer to each fault."""
    try:
        return TableSettings.model_validate(json.loads(text or "{}"))
    except ValidationError as error:
        faults = plain_faults(error.errors(), within=("settings",))
        raise InvalidRequestError("the settings have faults", faults=faults) from None
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError("the settings are not JSON", faults=[Fault("/settings", str(error)[:200])]) from None


def _import(engine: Engine, file: UploadFile, settings: TableSettings) -> ImportBody:
    from service.measurements.imports import import_table  # pyarrow is large, and most requests have no table

    return import_body(import_table(engine, file.file, plain_name(file.filename), settings))


def _position(position: dict[str, Any]) -> int:
    found = position.get("id")
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < 2**31:
        raise InvalidPageTokenError("pass page_token exactly as next_page_token gave it")
    return found


def _network(session: Session, query: CoverageQuery) -> Network:
    if (query.network is None) == (query.family is None):
        raise InvalidRequestError("name one network: `network`, an imported one, or `family` and `input`")
    of_family = {"width", "input", "stem_stride", "classes"} & query.model_fields_set
    if query.network is not None and of_family:
        named = ", ".join(f"`{name}`" for name in sorted(of_family))
        raise InvalidRequestError(f"an imported network brings its own shape: leave {named} out")
    try:
        precision = parse_precision(query.precision)
        if query.network is not None:
            row = get_network(session, query.network)
            if row.network is None:
                raise NotFoundError(f"{query.network!r} is not imported yet")
            return in_precision(network_from_json(row.network), precision)
        if query.input is None:
            raise InvalidRequestError("give `input` with `family`: channels,height,width")
        channels, height, width = (int(part) for part in query.input.split(","))
        assert query.family is not None
        shape = (channels, height, width)
        network = catalog_network(query.family, query.width, shape, query.stem_stride, query.classes)
        return in_precision(network, precision)
    except ValueError as error:
        raise InvalidRequestError(f"there is no such network: {str(error)[:300]}") from None


def _check_known(session: Session, device: str) -> None:
    """A device that nothing is known of is likely to be a mistyped one."""
    if session.get(Device, device) is None:
        with_figures = list_measurements(session, Filters(device=device), limit=1)
        if not with_figures:
            raise NotFoundError(f"no device {device!r} was announced, and no figures of it were imported")


def _coverage_body(found: Coverage, query: CoverageQuery, network: str, protocol: Mapping[str, int]) -> CoverageBody:
    return CoverageBody(
        device=query.device,
        metric=query.metric,
        batch=protocol["batch"],
        threads=protocol["threads"],
        network=network,
        workloads=found.workloads,
        found=dict(found.found),
        whole_network=found.whole_network,
        stale=found.stale,
        missing=[
            MissingBody(
                kind=one.workload.kind,
                digest=one.workload.digest,
                signature=one.workload.signature,
                nodes=list(one.nodes),
            )
            for one in found.missing
        ],
    )
