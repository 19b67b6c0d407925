"""A profile fills a real database, goes on where it stopped, and ends with an error on what it has not seen."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Collection
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import Engine, func, select

from search_spaces.catalog import build_network
from search_spaces.cost_models.terms import terms_of
from search_spaces.costs import network_workloads
from search_spaces.network import Network
from search_spaces.objectives import DEVICE_METRICS, Metric, Provenance
from search_spaces.spec import Family, NetworkSpec
from service.cost_models.queries import current_model, grown_conditions, measured_networks
from service.db import reading, transaction
from service.devices.actions import describe, this_process
from service.devices.queries import is_live
from service.models import CostModel, Device, Measurement, Workload
from workers.cost_models import fit_model, is_held_out
from workers.hardware.base import Anchor, Deployed, Results, summarise
from workers.hardware.base import Device as Hardware
from workers.hardware.onnxruntime_cpu import OnnxRuntimeCpu
from workers.hardware.timing import DEFAULT_PROTOCOL, Protocol
from workers.host_lock import HostBusyError, measuring, measuring_for_long
from workers.profile import Profile, conditions_of, take_profile

STEP_S = 0.5
NETWORK = build_network(NetworkSpec(family=Family.MOBILENET_V1, width=0.5, input=(1, 16, 16)), 10, (0.5,), (0.5,))


class Formula(Hardware):
    """Takes as long as a formula says; its figures repeat within a percent."""

    def __init__(self) -> None:
        self.measured: list[str] = []
        self._generator = np.random.default_rng(0)

    def capabilities(self):
        return OnnxRuntimeCpu().capabilities().model_copy(update={"name": "formula", "batches": (1, 4)})

    def measure(
        self,
        deployed: Deployed,
        anchor: Anchor | None = None,
        protocol: Protocol = DEFAULT_PROTOCOL,
        wanted: Collection[Metric] = DEVICE_METRICS,
    ) -> Results:
        self.measured.append(network_workloads(deployed.network)[0].digest)
        latency_s = sum(1e-6 + 1e-9 * sum(term.amounts[1:]) for term in terms_of(deployed.network)) * protocol.batch
        values = latency_s * np.exp(self._generator.normal(0, 0.005, 9))
        ratio = None if anchor is None else float(np.median(values) / anchor.latency_s)
        told = summarise(Metric.LATENCY_S, values, ratio, protocol, {"runtime": "formula"}, Provenance.MEASURED)
        return {Metric.LATENCY_S: told}


def begin(engine: Engine, device: Hardware, protocol: Protocol = DEFAULT_PROTOCOL) -> Profile:
    with transaction(engine) as session:
        describe(session, device.capabilities(), this_process(), "formula")
    return Profile(engine, device, device.capabilities(), protocol)


def run(profile: Profile, seconds: float, *networks: Network) -> list[float]:
    """Every look at the clock takes half a second."""
    ticks = itertools.count()
    return [step.share for step in take_profile(profile, networks or (NETWORK,), seconds, lambda: STEP_S * next(ticks))]


def count(engine: Engine) -> int:
    with reading(engine) as session:
        return session.scalar(select(func.count(Measurement.id))) or 0


def test_a_profile_ends_with_its_error_on_networks_it_has_not_seen(engine):
    device = Formula()
    profile = begin(engine, device)
    shares = run(profile, 150)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0, abs=0.1)
    with reading(engine) as session:
        conditions_id = conditions_of(session, profile)
        networks = measured_networks(session, conditions_id, Metric.LATENCY_S)
    held_out = sum(is_held_out(one.digest) for one in networks)
    fitted = fit_model(engine, conditions_id)
    errors = fitted.report["held_out"]["all"]
    assert (fitted.version, fitted.samples) == (1, len(networks) - held_out)
    assert errors["networks"] + errors["uncovered"] == held_out > 5
    assert errors["networks"] > 5
    assert errors["mean_error"] < 0.02
    assert errors["within_5_percent"] == 1.0
    assert fitted.report["repeatability"]["mean"] < 0.01
    assert set(fitted.report["held_out"]) >= {"all", "integer", "mixed"}
    assert fit_model(engine, conditions_id).version == 2
    with reading(engine) as session:
        current = current_model(session, session.get_one(Device, "formula"), Metric.LATENCY_S)
    assert current is not None
    assert current.version == 2
    taken_s = sum(1e-6 + 1e-9 * sum(term.amounts[1:]) for term in terms_of(NETWORK))
    assert current.model.predict(NETWORK).value == pytest.approx(taken_s, rel=0.05)


def test_the_same_again_goes_on_where_it_was(engine):
    first, second = Formula(), Formula()
    run(begin(engine, first), 40)
    before = count(engine)
    run(begin(engine, second), 80)
    once = set(first.measured)
    # Only what is measured twice on purpose was there before.
    assert not once.intersection(second.measured[: len(second.measured) - 8])
    assert count(engine) > before
    with reading(engine) as session:
        digests = session.scalars(select(Workload.digest).where(Workload.kind == "network")).all()
    assert set(digests) == once | set(second.measured)


def test_another_batch_is_another_protocol_and_never_mixed(engine):
    device = Formula()
    run(begin(engine, device), 30)
    four = begin(engine, device, replace(DEFAULT_PROTOCOL, batch=4))
    run(four, 30)
    with reading(engine) as session:
        ids = [conditions_of(session, one) for one in (begin(engine, device), four)]
        costs = [measured_networks(session, one, Metric.LATENCY_S)[0].costs[0] for one in ids]
    assert ids[0] != ids[1]
    assert costs[1] == pytest.approx(4 * costs[0], rel=0.05)


def test_networks_share_the_time(engine):
    other = build_network(NetworkSpec(family=Family.VGG_13, width=0.25, input=(1, 16, 16)), 10, (0.5,), (0.5,))
    device = Formula()
    run(begin(engine, device), 40, NETWORK, other)
    with reading(engine) as session:
        conditions_id = conditions_of(session, begin(engine, device))
        sizes = [len(one.operators) for one in measured_networks(session, conditions_id, Metric.LATENCY_S)]
    assert min(np.unique(sizes, return_counts=True)[1]) >= 10


def test_a_changed_device_has_no_model_until_it_is_profiled_again(engine):
    device = Formula()
    profile = begin(engine, device)
    run(profile, 60)
    with reading(engine) as session:
        conditions_id = conditions_of(session, profile)
    fit_model(engine, conditions_id)
    changed = device.capabilities().model_copy(update={"fingerprint": {"processor": "another"}})
    with transaction(engine) as session:
        describe(session, changed, this_process(), "formula")
        row = session.get_one(Device, "formula")
        assert current_model(session, row, Metric.LATENCY_S) is None
        assert not is_live(row)
        assert session.scalar(select(func.count(CostModel.id))) == 1
    assert count(engine) > 12


def test_a_model_is_fitted_again_once_much_has_come(engine):
    device = Formula()
    profile = begin(engine, device)
    run(profile, 30)
    with reading(engine) as session:
        conditions_id = conditions_of(session, profile)
    fit_model(engine, conditions_id)
    with reading(engine) as session:
        assert grown_conditions(session) == []
    run(profile, 90)
    with reading(engine) as session:
        assert grown_conditions(session) == [conditions_id]
    fit_model(engine, conditions_id)
    with reading(engine) as session:
        assert grown_conditions(session) == []


def test_two_do_not_measure_for_long_at_once():
    holder = """
import time
from workers.host_lock import measuring_for_long
with measuring_for_long():
    print(1, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(HostBusyError, match="try again when it is done"), measuring_for_long():
            pass
        process.kill()
    with measuring_for_long(), measuring():  # its own figures may be taken, and the lock is free again
        pass


def test_a_profile_does_not_begin_beside_a_figure_that_is_being_taken():
    with measuring(), pytest.raises(HostBusyError), measuring_for_long():
        pass
