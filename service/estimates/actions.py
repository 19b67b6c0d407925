"""Tells what designs cost: what follows from their data, and of a device what is known without asking it.

Of a device the best answer counts: what its closed form says, if it is simulated; what was found of the very network;
what its cost model predicts; what was imported of the network, or the sum of an imported table, if that has every
operator; and last, if that is allowed, what was measured before the device changed.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from search_spaces.accelerators.models import MODELS, simulate
from search_spaces.apply import DesignError, apply
from search_spaces.capabilities import DeviceCapabilities
from search_spaces.catalog import build_network
from search_spaces.check import Checked, check_spec
from search_spaces.cost_models.additive import UncoveredError
from search_spaces.costs import Workload, network_workloads, symbolic_values
from search_spaces.design import Design, design_from_json
from search_spaces.faults import Fault
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
from service.measurements.queries import Figures, lookup
from service.models import Device
from service.networks.queries import get_network

_NAMED_AT_MOST = 5


@dataclass(frozen=True)
class _Told:
    """What the device is known to take for one design; in each metric's own unit."""

    values: dict[str, float] = field(default_factory=dict)
    sources: dict[str, Provenance] = field(default_factory=dict)
    intervals: dict[str, IntervalBody] = field(default_factory=dict)
    stale: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    def tell(self, metric: str, value: float, source: Provenance) -> None:
        self.values[metric], self.sources[metric] = value, source
        self.missing.pop(metric, None)


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
    has_predicted = any(Provenance.PREDICTED in item.sources.values() for item in items)
    version = fitted.version if fitted is not None and has_predicted else None
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
        stale=told.stale,
        missing=told.missing,
    )


@dataclass(frozen=True)
class _Question:
    """One metric of one network on one device.

    Attributes:
        protocol: what figures must share with those that a search is told.
    """

    session: Session
    device: str
    metric: str
    network: Network
    whole: Workload
    operators: Sequence[Workload]
    protocol: Mapping[str, int]

    def look_up(
        self, workloads: Collection[str], provenance: Provenance, *, allow_stale: bool = False
    ) -> dict[str, Figures]:
        return lookup(
            self.session,
            self.device,
            workloads,
            self.metric,
            protocol=self.protocol,
            provenances=(provenance,),
            allow_stale=allow_stale,
        )


def _ask(session: Session, device: Device, fitted: Fitted | None, network: Network, *, allow_stale: bool) -> _Told:
    told = _Told()
    capabilities = DeviceCapabilities.model_validate(device.capabilities)
    told.missing.update({str(metric): reason for metric, reason in capabilities.unavailable.items()})
    refusal = _why_not_executed(network, capabilities)
    if refusal:
        told.missing.update({str(metric): refusal for metric in capabilities.metrics})
        return told
    if device.kind in MODELS:
        for name, value in simulate(device.kind, network).items():
            told.tell(str(name), value, Provenance.SIMULATED)
        return told
    whole, operators = network_workloads(network)
    protocol = {"batch": capabilities.batch, "threads": capabilities.threads}
    for metric in map(str, capabilities.metrics):
        question = _Question(session, device.name, metric, network, whole, operators, protocol)
        model = fitted if metric == Metric.LATENCY_S else None
        own = Provenance.SIMULATED if capabilities.simulated else Provenance.MEASURED
        if not (_is_found(told, question, own) or _is_predicted(told, question, model) or _is_imported(told, question)):
            _tell_stale(told, question, allow_stale=allow_stale)
    return told


def _why_not_executed(network: Network, capabilities: DeviceCapabilities) -> str:
    """Why a device does not execute a network; empty where it does."""
    executed = set(capabilities.precisions)
    wrong = next((layer for layer in network.compute_nodes() if str(layer.precision) not in executed), None)
    if wrong is None:
        return ""
    few = len(capabilities.precisions) <= _NAMED_AT_MOST
    choices = (
        ", ".join(capabilities.precisions) if few else f"{capabilities.precisions[0]} to {capabilities.precisions[-1]}"
    )
    return f"layer {wrong.name!r} is in {wrong.precision}, which {capabilities.name} does not execute; it has {choices}"


def _is_found(told: _Told, question: _Question, provenance: Provenance) -> bool:
    """Whether the very network was measured, or simulated by a model that only workers have."""
    known = question.look_up([question.whole.digest], provenance).get(question.whole.digest)
    if known is not None:
        told.tell(question.metric, known.median, provenance)
    return known is not None


def _is_predicted(told: _Told, question: _Question, fitted: Fitted | None) -> bool:
    if fitted is None:
        return False
    try:
        found = fitted.model.predict(question.network)
    except UncoveredError as error:
        told.missing[question.metric] = f"{error}; profile a network that has it: espalier device profile"
        return False
    told.tell(question.metric, found.value, Provenance.PREDICTED)
    told.intervals[question.metric] = IntervalBody(low=found.low, high=found.high)
    return True


def _is_imported(told: _Told, question: _Question) -> bool:
    """What a table has of the network itself, or the sum of what it has of each operator: only if it has them all.

    A table of layers has no pools and additions; it is complete with all layers. Figures of several tables, or of
    several settings, are not added up.
    """
    layers = {one.digest: layer.digest for one in question.operators if (layer := layer_of(one)) is not None}
    wanted = {question.whole.digest, *(one.digest for one in question.operators), *layers.values()}
    known = question.look_up(wanted, Provenance.IMPORTED)
    whole = known.get(question.whole.digest)
    if whole is not None:
        told.tell(question.metric, whole.median, Provenance.IMPORTED)
        return True
    parts = {one.digest: known.get(one.digest) or known.get(layers.get(one.digest, "")) for one in question.operators}
    is_of_layers = any(digest in known for digest in layers.values())
    lacking = [
        one.name
        for one in question.operators
        if parts[one.digest] is None and (one.digest in layers or not is_of_layers)
    ]
    if not known:
        return False
    if lacking:
        named = ", ".join(lacking[:_NAMED_AT_MOST])
        count = f"{len(lacking)} of {len(question.operators)}"
        told.missing[question.metric] = f"the table of {question.device} lacks {count} operators: {named}"
        return False
    if len({part.conditions_id for part in parts.values() if part is not None}) > 1:
        told.missing[question.metric] = f"the figures of {question.device} are of several settings, which do not add up"
        return False
    values = [part.median for one in question.operators if (part := parts[one.digest]) is not None]
    told.tell(question.metric, sum(values), Provenance.IMPORTED)
    return True


def _tell_stale(told: _Told, question: _Question, *, allow_stale: bool) -> None:
    digest = question.whole.digest
    old = question.look_up([digest], Provenance.MEASURED, allow_stale=True).get(digest)
    if old is not None and allow_stale:
        told.tell(question.metric, old.median, Provenance.MEASURED)
        told.stale.append(question.metric)
        told.missing.pop(question.metric, None)
    elif old is not None:
        told.missing[question.metric] = f"{question.device} has changed since it was measured; allow_stale takes that"
    else:
        remedy = "profile it (espalier device profile), or import a table"
        told.missing.setdefault(question.metric, f"nothing is known of {question.device} yet: {remedy}")
