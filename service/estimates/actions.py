"""Tells what designs cost: what follows from their data, and of a device what is known without asking it.

Of a device the best answer counts: what was measured of the very network, else what its model says, which is exact for
a simulated one; else the sum of an imported table, if that has every operator.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from search_spaces.accelerators.models import MODELS, simulate
from search_spaces.apply import DesignError, apply
from search_spaces.capabilities import DeviceCapabilities
from search_spaces.catalog import build_network
from search_spaces.check import Checked, Fault, check_spec
from search_spaces.cost_models.additive import UncoveredError
from search_spaces.costs import Workload, network_workloads, symbolic_values
from search_spaces.design import Design, design_from_json
from search_spaces.network import Network, network_from_json
from search_spaces.objectives import Metric, Provenance
from search_spaces.signatures import layer_of
from search_spaces.space import Space
from search_spaces.spec import AnyNetworkSpec, NetworkSpec
from service.cost_models.queries import Fitted, current_model
from service.devices.queries import get_device
from service.errors import InvalidRequestError, NotFoundError
from service.estimates.schemas import EstimateBody, EstimateRequest, EstimatesBody, IntervalBody
from service.known import known_for
from service.measurements.queries import lookup
from service.models import Device
from service.networks.queries import get_network

_NAMED_AT_MOST = 5


@dataclass(frozen=True)
class _Told:
    """What the device is known to take for one design; in each metric's own unit."""

    values: dict[str, float] = field(default_factory=dict)
    sources: dict[str, Provenance] = field(default_factory=dict)
    intervals: dict[str, IntervalBody] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def tell(self, metric: str, value: float, source: Provenance) -> None:
        self.values[metric], self.sources[metric] = value, source


def estimate(session: Session, request: EstimateRequest) -> EstimatesBody:
    """Estimate all designs of a request; milliseconds for each.

    Raises:
        InvalidRequestError: a design does not fit the network, with a pointer to it.
        NotFoundError: there is no such network or device.
        SpecError: the spec has faults.
    """
    network, designs, name = _what_is_asked(session, request)
    applied = [_apply(network, design, number) for number, design in enumerate(designs)]
    device = None if name is None else get_device(session, name)
    fitted = None if device is None else current_model(session, device, Metric.LATENCY_S)
    items = [
        _estimate_one(session, device, fitted, design, network, allow_stale=request.allow_stale)
        for design, network in zip(designs, applied, strict=True)
    ]
    version = None if fitted is None else fitted.version
    return EstimatesBody(device=name, cost_model=version, items=items)


def _what_is_asked(session: Session, request: EstimateRequest) -> tuple[Network, list[Design], str | None]:
    designs = [_read_design(design, number) for number, design in enumerate(request.designs)]
    if request.spec is not None:
        checked = _check(session, request)
        designs += _draw(checked.space, request.sample, request.seed)
        return checked.network, designs or [Design.of({})], request.device or request.spec.device
    assert request.network is not None, "the request has one of both"
    return _find_network(session, request.network, request.classes), designs or [Design.of({})], request.device


def _check(session: Session, request: EstimateRequest) -> Checked:
    assert request.spec is not None, "asked for a spec only"
    return check_spec(request.spec, known_for(session, request.spec))


def _read_design(design: Mapping[str, int | str], number: int) -> Design:
    try:
        return design_from_json(design)
    except ValueError as error:
        raise InvalidRequestError("a design has faults", faults=[Fault(f"/designs/{number}", str(error))]) from None


def _draw(space: Space, count: int, seed: int) -> list[Design]:
    generator = random.Random(seed)
    return [
        space.design_at([generator.randrange(len(decision.choices)) for decision in space.decisions])
        for _ in range(count)
    ]


def _find_network(session: Session, spec: AnyNetworkSpec, classes: int) -> Network:
    if isinstance(spec, NetworkSpec):
        channels = spec.input[0]
        return build_network(spec, classes, (0.5,) * channels, (0.5,) * channels)
    row = get_network(session, spec.name)
    if row.network is None:
        raise NotFoundError(f"the network {spec.name!r} has not been imported: {row.reason or row.state}")
    return network_from_json(row.network)


def _apply(network: Network, design: Design, number: int) -> Network:
    try:
        return apply(network, design)
    except DesignError as error:
        fault = Fault(f"/designs/{number}", str(error))
        raise InvalidRequestError("a design does not fit the network", faults=[fault]) from None


def _estimate_one(
    session: Session,
    device: Device | None,
    fitted: Fitted | None,
    design: Design,
    network: Network,
    *,
    allow_stale: bool,
) -> EstimateBody:
    told = _Told() if device is None else _ask(session, device, fitted, network, allow_stale=allow_stale)
    values = {str(metric): value for metric, value in symbolic_values(network).items()}
    return EstimateBody(
        design=design.to_json(),
        values=values | told.values,
        sources=told.sources,
        intervals=told.intervals,
        missing=told.missing,
    )


def _ask(session: Session, device: Device, fitted: Fitted | None, network: Network, *, allow_stale: bool) -> _Told:
    told, name = _Told(), device.name
    capabilities = DeviceCapabilities.model_validate(device.capabilities)
    protocol = {"batch": capabilities.batch, "threads": capabilities.threads}  # of what a search is told
    told.missing.update({str(metric): reason for metric, reason in capabilities.unavailable.items()})
    whole, operators = network_workloads(network)
    simulated, refusal = _simulate(device.kind, network)
    for metric in map(str, capabilities.metrics):
        known = lookup(session, name, [whole.digest], metric, protocol=protocol, allow_stale=allow_stale)
        if metric in simulated:
            told.tell(metric, simulated[metric], Provenance.SIMULATED)
        elif whole.digest in known:
            told.tell(metric, known[whole.digest].median, known[whole.digest].provenance)
        elif metric == Metric.LATENCY_S and fitted is not None:
            _predict(told, fitted, network)
        else:
            _add_up(session, told, name, metric, protocol, operators, refusal)
    return told


def _simulate(kind: str, network: Network) -> tuple[dict[str, float], str]:
    """What a closed form says by metric, and why it says nothing."""
    if kind not in MODELS:
        return {}, ""
    try:
        return {str(metric): value for metric, value in simulate(kind, network).items()}, ""
    except ValueError as error:
        return {}, str(error)


def _predict(told: _Told, fitted: Fitted, network: Network) -> None:
    try:
        found = fitted.model.predict(network)
    except UncoveredError as error:
        told.missing[Metric.LATENCY_S] = f"{error}; profile a network that has it: espalier device profile"
        return
    told.tell(Metric.LATENCY_S, found.value, Provenance.PREDICTED)
    told.intervals[Metric.LATENCY_S] = IntervalBody(low=found.low, high=found.high)


def _add_up(
    session: Session,
    told: _Told,
    device: str,
    metric: str,
    protocol: Mapping[str, int],
    operators: Sequence[Workload],
    refusal: str,
) -> None:
    """The sum of what the table has of each operator: only if it has them all, since nothing is made up.

    A table of layers has no pools and additions; it is complete with all layers.
    """
    layers = {one.digest: layer.digest for one in operators if (layer := layer_of(one)) is not None}
    digests = {*(one.digest for one in operators), *layers.values()}
    known = lookup(session, device, digests, metric, protocol=protocol, provenances=(Provenance.IMPORTED,))
    parts = [known.get(one.digest) or known.get(layers.get(one.digest, "")) for one in operators]
    is_of_layers = any(digest in known for digest in layers.values())
    lacking = [
        one.name
        for one, part in zip(operators, parts, strict=True)
        if part is None and (one.digest in layers or not is_of_layers)
    ]
    if not lacking:
        told.tell(metric, sum(part.median for part in parts if part is not None), Provenance.IMPORTED)
        return
    if refusal:
        told.missing[metric] = refusal
    elif known:
        named = ", ".join(lacking[:_NAMED_AT_MOST])
        told.missing[metric] = f"the table of {device} lacks {len(lacking)} of {len(operators)} operators: {named}"
    else:
        told.missing[metric] = (
            f"nothing is known of {device} yet: profile it (espalier device profile), or import a table"
        )
