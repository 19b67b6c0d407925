"""Fills the database with what networks take on a device, and fits its cost model: no data set, no accuracy.

Measured are whole networks, as a search would propose them: pruned at random, in each precision that the device has and
mixed by block. (Operators measured apart mislead, and so do a profiler's times on small maps; see
`docs/decisions/0019`.) The order of designs follows from the network alone, and what the database has already is not
measured again, so that a profile that was stopped goes on where it was.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from search_spaces.apply import apply
from search_spaces.build_space import build_space
from search_spaces.capabilities import DeviceCapabilities
from search_spaces.costs import network_workloads
from search_spaces.design import Kind
from search_spaces.network import Network, in_precision, network_digest
from search_spaces.objectives import Metric, Provenance
from search_spaces.precision import Precision, parse_precision
from search_spaces.space import Decision, Space
from search_spaces.spec import PrecisionChoices, RatioRange, SpaceSpec
from service.db import reading, transaction
from service.measurements.actions import NewMeasurement, WorkloadKey, record
from service.measurements.conditions import digest_of
from service.models import Conditions, Measurement, Workload
from workers.anchor import main_precision
from workers.cost_models import is_held_out
from workers.fold import fold_batch_norms
from workers.hardware.base import Anchor, Deployed, Device, Results
from workers.hardware.timing import Protocol
from workers.host_lock import measuring
from workers.onnx_quantize import calibrated_tensors
from workers.onnx_writer import write_onnx
from workers.weights import init_weights

_log = logging.getLogger(__name__)

SPACE = RatioRange(low=0.0, high=0.8, step=0.05)
REPEATED = 12
"""Networks of each family that are measured twice at the end, which tells how well a figure repeats."""

MOST_FAILURES = 5
"""Designs in a row that cannot be measured end a profile: then it is not the design."""

REPEATED_SHARE = 0.1
"""Of the time, kept for that."""

_BREATH_S = 0.02
"""Between figures, so that whoever waits for this machine gets a turn."""

_RANGE = (0.0, 4.0)
"""Of every quantised tensor: how long it takes does not depend on its values."""


@dataclass(frozen=True)
class Step:
    """One figure that was taken, or found in the database.

    Attributes:
        network: its name.
        done: figures of this network so far, those that were there before among them.
        share: of the time that is spent, in [0, 1].
    """

    network: str
    done: int
    latency_s: float
    share: float


@dataclass(frozen=True)
class Profile:
    """What a profile works with.

    Attributes:
        engine: of the database that gets the figures.
        device: what is measured.
        capabilities: its own, under the name that it has in the database.
        protocol: how it is measured; its batch and threads are the profile's.
    """

    engine: Engine
    device: Device
    capabilities: DeviceCapabilities
    protocol: Protocol


def take_profile(
    profile: Profile, networks: Sequence[Network], seconds: float, clock: Callable[[], float] = time.monotonic
) -> Iterator[Step]:
    """Measure for so many seconds, each network for its share of them. The caller holds `measuring_for_long`.

    Raises:
        SpaceError: a network has nothing that could be varied on the device.
    """
    each_s = seconds / len(networks)
    for number, network in enumerate(networks):
        ends = clock() + each_s
        for done, latency_s in _profile_one(profile, network, partial(_left_s, ends, clock)):
            spent = 1 - max(ends - clock(), 0.0) / each_s
            yield Step(network.name, done, latency_s, (number + spent) / len(networks))


def _left_s(ends: float, clock: Callable[[], float]) -> float:
    return ends - clock()


def conditions_of(session: Session, profile: Profile) -> int | None:
    """The conditions that a profile's figures were taken under; None when there are none."""
    told, stated = profile.capabilities, asdict(profile.protocol)
    query = select(Conditions).where(
        Conditions.device == told.name, Conditions.fingerprint_digest == digest_of(told.fingerprint)
    )
    for row in session.scalars(query.order_by(Conditions.id.desc())):
        if all(row.protocol.get(name) == value for name, value in stated.items()):
            return row.id
    return None


def _profile_one(profile: Profile, network: Network, left_s: Callable[[], float]) -> Iterator[tuple[int, float]]:
    """How many figures there are so far, and the last of them."""
    anchors = _anchors(profile, network)
    done = 0
    for anchor in anchors.values():
        done += 1
        yield done, anchor.latency_s
    whole, unseen, failures = left_s(), [], 0
    for design in _designs(network, profile.capabilities):
        if left_s() < REPEATED_SHARE * whole:
            break
        anchor = anchors[main_precision(design)]
        try:
            latency_s, is_new = _measured(profile, design, anchor)
        except Exception:
            failures += 1
            if failures >= MOST_FAILURES:
                raise
            _log.exception("a design of %s cannot be measured; it is left out", network.name)
            continue
        failures = 0
        done += 1
        if is_new and is_held_out(network_workloads(design)[0].digest):
            unseen.append((design, anchor))
        yield done, latency_s
    for design, anchor in unseen[-REPEATED:]:
        yield done, _measure(profile, design, anchor)


def _anchors(profile: Profile, network: Network) -> dict[Precision, Anchor]:
    """The network itself in each precision; the first by itself, the others beside it."""
    anchors: dict[Precision, Anchor] = {}
    first: Anchor | None = None
    for text in profile.capabilities.precisions:
        precision = parse_precision(text)
        whole = in_precision(network, precision)
        with reading(profile.engine) as session:
            known = _known(session, profile, whole)
        latency_s = _measure(profile, whole, first) if known is None else known
        anchors[precision] = Anchor(deploy_untrained(whole, profile.protocol), latency_s)
        first = first or anchors[precision]
    return anchors


_MOST_REPEATS = 500


def _designs(network: Network, capabilities: DeviceCapabilities) -> Iterator[Network]:
    """Networks without end, in an order that follows from the network."""
    precisions = PrecisionChoices(choices=capabilities.precisions, scope=capabilities.precision_scope)
    space, _ = build_space(network, SpaceSpec(prune_ratio=SPACE, precision=precisions), capabilities)
    generator = random.Random(network_digest(network))
    seen: set[str] = set()
    kinds, repeats = [*capabilities.precisions, None], 0
    while repeats < _MOST_REPEATS:  # of a small space there are no more
        for precision in kinds:
            design = apply(network, space.design_at(_choose(space, precision, generator)))
            digest = network_workloads(design)[0].digest
            repeats = repeats + 1 if digest in seen else 0
            if digest not in seen:
                seen.add(digest)
                yield design


def _choose(space: Space, precision: str | None, generator: random.Random) -> list[int]:
    """Choices of one design: half of them at random throughout, half near one ratio, as a search soon finds.

    Args:
        space: of the network.
        precision: of all blocks; None mixes them.
        generator: decides.
    """
    level = None if generator.random() < 0.5 else generator.random()
    first_share = generator.random()
    return [_choice(decision, precision, level, first_share, generator) for decision in space.decisions]


def _choice(
    decision: Decision, precision: str | None, level: float | None, first_share: float, generator: random.Random
) -> int:
    choices = decision.choices
    if decision.kind is Kind.PRECISION:
        if precision is not None:
            return choices.index(precision)
        return 0 if generator.random() < first_share else generator.randrange(len(choices))
    if level is None:
        return generator.randrange(len(choices))
    counts = sorted(choices, key=int)
    place = level * (len(counts) - 1) + generator.gauss(0, max(0.7, 0.12 * len(counts)))
    return choices.index(counts[min(max(round(place), 0), len(counts) - 1)])


# --- one figure -------------------------------------------------------------------------------------------------


def _measured(profile: Profile, design: Network, anchor: Anchor) -> tuple[float, bool]:
    """What a design takes, and whether that was not known before."""
    with reading(profile.engine) as session:
        known = _known(session, profile, design)
    return (_measure(profile, design, anchor), True) if known is None else (known, False)


def _known(session: Session, profile: Profile, design: Network) -> float | None:
    """Latency of a design that was profiled, if it was. What searches measured has their bases' scale."""
    query = (
        select(Measurement.median)
        .join(Workload, Workload.id == Measurement.workload_id)
        .where(
            Workload.digest == network_workloads(design)[0].digest,
            Measurement.conditions_id == conditions_of(session, profile),
            Measurement.metric == str(Metric.LATENCY_S),
            Measurement.provenance == str(Provenance.MEASURED),
            Measurement.trial_id.is_(None),
        )
    )
    return session.scalar(query.order_by(Measurement.id).limit(1))


def _measure(profile: Profile, design: Network, anchor: Anchor | None) -> float:
    deployed = deploy_untrained(design, profile.protocol)
    time.sleep(_BREATH_S)
    with measuring():
        results = profile.device.measure(deployed, anchor, profile.protocol, (Metric.LATENCY_S,))
    _store(profile, design, results)
    return results[Metric.LATENCY_S].median


def _store(profile: Profile, design: Network, results: Results) -> None:
    whole, operators = network_workloads(design)
    key, *parts = (WorkloadKey(one.kind, one.digest, one.signature) for one in (whole, *operators))
    rows = [
        NewMeasurement(
            workload=key,
            device=profile.capabilities.name,
            fingerprint=profile.capabilities.fingerprint,
            protocol=result.protocol,
            metric=str(metric),
            median=result.median,
            lower_quartile=result.lower_quartile,
            upper_quartile=result.upper_quartile,
            count=result.count,
            samples=result.samples,
            anchor_ratio=result.anchor_ratio,
            provenance=result.provenance,
            operators=tuple(parts),
        )
        for metric, result in results.items()
    ]
    with transaction(profile.engine) as session:
        record(session, rows)


def deploy_untrained(design: Network, protocol: Protocol) -> Deployed:
    """A network with random weights as it is deployed: what it takes does not depend on them."""
    folded, weights = fold_batch_norms(design, init_weights(design, seed=0))
    ranges = dict.fromkeys(calibrated_tensors(folded), _RANGE)
    return Deployed(folded, write_onnx(folded, weights, ranges, protocol.batch))
