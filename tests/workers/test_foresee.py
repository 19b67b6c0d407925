"""Trials that a cost model answers for: what the worker says before, what the evaluator does with it, what is kept."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest
from sqlalchemy import select

from search_spaces.apply import apply
from search_spaces.check import check_spec
from search_spaces.cost_models.terms import terms_of
from search_spaces.costs import Workload as AnyWorkload
from search_spaces.costs import network_workloads
from search_spaces.design import Design, design_from_json
from search_spaces.foresight import CHECK_EVERY, Foresight, WhyMeasured
from search_spaces.known import Sources
from search_spaces.network import Network
from search_spaces.objectives import Metric, Provenance, TrialState
from search_spaces.spec import SearchSpec
from service.cost_models.actions import add_cost_model
from service.cost_models.queries import measured_networks
from service.db import reading, transaction
from service.devices.actions import announce, this_process
from service.measurements.actions import NewMeasurement, WorkloadKey, find_or_add_conditions, record
from service.measurements.conditions import conditions_digest
from service.models import Conditions, Measurement, Residual, Workload
from service.states import SearchState
from tests.workers.on_digits import digits_spec, half, on_local_cpu
from tests.workers.stage import Stage, invent, make_spec
from workers.additive_fit import Sample, fit
from workers.announce import local_known
from workers.evaluator import JobName
from workers.hardware.onnxruntime_cpu import OnnxRuntimeCpu
from workers.jobs import evaluate

BASE_LATENCY_S = 2e-3
PROTOCOL = {"batch": 1, "threads": 1}
OBJECTIVES = [
    {"metric": "accuracy", "direction": "maximize"},
    {"metric": "latency_s", "direction": "minimize", "device": "local-cpu"},
]


# --- what is said before ----------------------------------------------------------------------------------------


def true_cost(network: Network) -> float:
    return sum(1e-6 + 1e-9 * sum(term.amounts[1:]) for term in terms_of(network))


def add_model(stage: Stage, base: Network, designs: list[Network]) -> None:
    """A model of the truth, fitted to designs of the base."""
    device = OnnxRuntimeCpu().capabilities()
    model = fit([Sample(terms_of(one), true_cost(one)) for one in (base, *designs)])
    digest = conditions_digest(device.name, device.fingerprint, PROTOCOL)
    with transaction(stage.workplace.engine) as session:
        announce(session, device, this_process())
        stated = {digest: (device.name, device.fingerprint, PROTOCOL)}
        conditions_id = find_or_add_conditions(session, stated)[digest]
        add_cost_model(session, conditions_id, Metric.LATENCY_S, model, len(designs), {})


class MadeUpResults:
    """An evaluator's results: the prediction where it is enough, else the truth with a measurement."""

    def __init__(self, base: Network, base_latency_s: float = BASE_LATENCY_S) -> None:
        self.base = base
        self.base_latency_s = base_latency_s
        self.told: list[dict[str, Any] | None] = []

    def __call__(self, job: JobName, arguments: dict[str, Any]) -> dict[str, Any]:
        result = invent(job, arguments)
        if job is JobName.PREPARE:
            digest = network_workloads(self.base)[0].digest
            return result | {"anchor": {"latency_s": self.base_latency_s, "workload_digest": digest}}
        if job is not JobName.EVALUATE:
            return result
        told = arguments["foresight"]
        self.told.append(told)
        network = apply(self.base, design_from_json(arguments["design"]))
        if told is not None and told["why_measured"] is None:
            values = result["values"] | {"latency_s": told["value"]}
            details = {"prediction": _without_front(told)}
            return result | {"values": values, "sources": {"latency_s": "predicted"}, "details": details}
        latency_s = true_cost(network) * self.base_latency_s / true_cost(self.base)
        details: dict[str, Any] = {"measurements": [self._measurement(network, latency_s)]}
        if told is not None:
            details["prediction"] = _without_front(told)
        values = result["values"] | {"latency_s": latency_s}
        return result | {"values": values, "sources": {"latency_s": "measured"}, "details": details}

    def _measurement(self, network: Network, latency_s: float) -> dict[str, Any]:
        whole, operators = network_workloads(network)
        device = OnnxRuntimeCpu().capabilities()
        return {
            "workload": whole.to_json(),
            "operators": [one.to_json() for one in operators],
            "device": device.name,
            "fingerprint": device.fingerprint,
            "protocol": PROTOCOL,
            "metric": "latency_s",
            "median": latency_s,
            "lower_quartile": latency_s,
            "upper_quartile": latency_s,
            "count": 5,
            "samples": [latency_s],
            "anchor_ratio": 1.0,
            "provenance": "measured",
        }


def _without_front(told: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in told.items() if name != "front"}


def run_search(stage: Stage, spec: SearchSpec, *, with_model: bool = True) -> tuple[str, MadeUpResults]:
    space = check_spec(spec, local_known()).space
    results = MadeUpResults(space.network)
    if with_model:
        add_model(stage, space.network, [apply(space.network, design) for design in _some(space)])
    else:
        with transaction(stage.workplace.engine) as session:
            announce(session, OnnxRuntimeCpu().capabilities(), this_process())
    with stage.workplace.evaluators.borrow() as evaluator:
        evaluator.result = results
    search_id = stage.submit(spec)
    stage.deliver()
    assert stage.search(search_id).state is SearchState.SUCCEEDED
    return search_id, results


def _some(space: Any) -> list[Design]:
    generator = Random(0)
    return [space.design_at([generator.randrange(len(one.choices)) for one in space.decisions]) for _ in range(60)]


def test_trials_are_predicted_to_the_scale_of_the_search_and_one_in_ten_is_checked(stage):
    search_id, results = run_search(stage, make_spec(objectives=OBJECTIVES, budget={"trials": 12}))
    trials = stage.trials(search_id)
    assert all(told is not None for told in results.told)
    predicted = [trial for trial in trials if trial.sources == {"latency_s": "predicted"}]
    checked = [trial for trial in trials if trial.sources == {"latency_s": "measured"}]
    assert {trial.number for trial in checked} == {trial.number for trial in trials if trial.number % CHECK_EVERY == 0}
    assert len(predicted) == len(trials) - len(checked) > 5
    base = results.base
    for trial in predicted:
        truth = true_cost(apply(base, design_from_json(trial.design))) * BASE_LATENCY_S / true_cost(base)
        assert trial.values["latency_s"] == pytest.approx(truth, rel=0.03)
    with reading(stage.workplace.engine) as session:
        residuals = session.scalars(select(Residual)).all()
        kinds = set(session.scalars(select(Workload.kind)))
        measured = session.scalars(select(Measurement)).all()
    assert {one.trial_id for one in residuals} == {trial.id for trial in checked}
    assert {one.reason for one in residuals} == {"check"}
    assert all(one.low < one.predicted < one.high for one in residuals)
    assert len(measured) == len(checked)
    assert kinds == {"network", "operator"}  # so that a model can be fitted to them


def test_the_front_so_far_is_told_with_each_trial(stage):
    _, results = run_search(stage, make_spec(objectives=OBJECTIVES, budget={"trials": 3}))
    assert results.told[0]["front"] == []
    assert all(member.keys() == {"accuracy", "latency_s"} for told in results.told for member in told["front"])
    assert any(told["front"] for told in results.told)


def test_a_limit_within_the_interval_is_measured(stage):
    objectives = [OBJECTIVES[0], {"metric": "size_bytes", "direction": "minimize"}]
    limits = [{"metric": "latency_s", "max": BASE_LATENCY_S, "device": "local-cpu"}]
    _, results = run_search(stage, make_spec(objectives=objectives, limits=limits, budget={"trials": 3}))
    straddling = [told for told in results.told if told["low"] <= BASE_LATENCY_S <= told["high"]]
    assert straddling  # the unpruned network itself, among the uniform ones
    assert {told["why_measured"] for told in straddling} == {"limit"}


def test_a_spec_can_have_everything_measured(stage):
    evaluation = {"calibration_images": 32, "score_images": 100, "measure": "always"}
    search_id, _ = run_search(stage, make_spec(objectives=OBJECTIVES, evaluation=evaluation, budget={"trials": 2}))
    assert {trial.sources["latency_s"] for trial in stage.trials(search_id)} == {"measured"}
    with reading(stage.workplace.engine) as session:
        assert {one.reason for one in session.scalars(select(Residual))} == {"asked"}


def test_without_a_model_everything_is_measured(stage):
    search_id, results = run_search(stage, make_spec(objectives=OBJECTIVES, budget={"trials": 2}), with_model=False)
    assert results.told == [None] * len(stage.trials(search_id))
    assert {trial.sources["latency_s"] for trial in stage.trials(search_id)} == {"measured"}


def test_a_trial_that_cannot_be_predicted_is_measured(stage, monkeypatch):
    """And claimed once: a fault here must not roll the claim back."""

    def broken(*_: object) -> None:
        raise RuntimeError("no answer")

    monkeypatch.setattr("workers.trial.foresee", broken)
    search_id, results = run_search(stage, make_spec(objectives=OBJECTIVES, budget={"trials": 2}))
    assert results.told == [None] * len(stage.trials(search_id))
    assert {trial.attempt for trial in stage.trials(search_id)} == {1}


def test_trials_are_fitted_to_on_the_scale_of_the_profile(stage):
    """A search whose base was measured in a slow hour tells all of its figures 30% too large."""
    spec = make_spec(objectives=OBJECTIVES, budget={"trials": 6})
    base = check_spec(spec, local_known()).network
    fast = {"latency_s": true_cost(base)}
    slow_s = 1.3 * true_cost(base)
    device = OnnxRuntimeCpu().capabilities()
    results = MadeUpResults(base, base_latency_s=slow_s)
    key, *parts = (WorkloadKey(one.kind, one.digest, one.signature) for one in _all_workloads(base))
    row = NewMeasurement(
        key, device.name, device.fingerprint, PROTOCOL, "latency_s", fast["latency_s"], fast["latency_s"],
        fast["latency_s"], 1, (), None, Provenance.MEASURED, tuple(parts),
    )  # fmt: skip
    with transaction(stage.workplace.engine) as session:
        announce(session, device, this_process())
        record(session, [row])
    with stage.workplace.evaluators.borrow() as evaluator:
        evaluator.result = results
    search_id = stage.submit(spec)
    stage.deliver()
    with reading(stage.workplace.engine) as session:
        digest = conditions_digest(device.name, device.fingerprint, PROTOCOL)
        conditions_id = session.scalar(select(Conditions.id).where(Conditions.digest == digest))
        measured = measured_networks(session, conditions_id, Metric.LATENCY_S)
    truths = {network_workloads(one)[0].digest: true_cost(one) for one in _networks(stage, search_id, base)}
    assert len(measured) == len(truths | {network_workloads(base)[0].digest: 0})
    for one in measured:
        if one.digest in truths:
            assert one.costs == pytest.approx([truths[one.digest]] * len(one.costs))


def _all_workloads(network: Network) -> list[AnyWorkload]:
    whole, operators = network_workloads(network)
    return [whole, *operators]


def _networks(stage: Stage, search_id: str, base: Network) -> list[Network]:
    return [apply(base, design_from_json(trial.design)) for trial in stage.trials(search_id)]


# --- what the evaluator does ------------------------------------------------------------------------------------

SURE = Foresight("latency_s", 1e-3, 0.9e-3, 1.1e-3, 1, 1, None, [{"accuracy": 1.0, "latency_s": 1e-9}])


def try_half(digits_home, foresight: Foresight | None, **changes: Any):
    spec = SearchSpec.model_validate(on_local_cpu(**changes))
    return evaluate(spec, Sources(), half("fp32"), digits_home.key, digits_home.folder, foresight=foresight)


def test_a_dominated_design_is_never_measured(digits_home):
    outcome = try_half(digits_home, SURE)
    assert outcome.state is TrialState.SUCCEEDED
    assert outcome.values["latency_s"] == 1e-3
    assert outcome.sources == {"latency_s": Provenance.PREDICTED}
    assert "measurements" not in outcome.details
    assert "measure" not in outcome.details["stage_s"]
    assert outcome.details["prediction"]["why_measured"] is None


def test_a_design_that_may_be_on_the_front_is_measured_after_it_is_scored(digits_home):
    outcome = try_half(digits_home, replace(SURE, front=[]))
    assert outcome.sources == {"latency_s": Provenance.MEASURED}
    assert outcome.values["latency_s"] == outcome.details["measurements"][0]["median"] != 1e-3
    assert outcome.details["prediction"]["why_measured"] == "front"
    assert list(outcome.details["stage_s"]).index("score") < list(outcome.details["stage_s"]).index("measure")


def test_a_check_is_measured_before_it_is_scored(digits_home):
    outcome = try_half(digits_home, replace(SURE, why=WhyMeasured.CHECK))
    assert outcome.sources == {"latency_s": Provenance.MEASURED}
    stages = list(outcome.details["stage_s"])
    assert stages.index("measure") < stages.index("score")


def test_a_limit_surely_missed_ends_it_before_any_work(digits_home):
    limits = [{"metric": "latency_s", "max": 0.5e-3, "device": "local-cpu"}]
    outcome = try_half(digits_home, SURE, limits=limits)
    assert outcome.state is TrialState.INFEASIBLE
    assert outcome.sources == {"latency_s": Provenance.PREDICTED}
    assert outcome.details["stage_s"] == {}


def test_a_design_that_misses_a_score_is_not_measured(digits_home):
    """However fast it may be: it is not going to be on the front."""
    outcome = try_half(digits_home, replace(SURE, front=[]), limits=[{"metric": "accuracy", "min": 1.01}])
    assert outcome.state is TrialState.INFEASIBLE
    assert outcome.sources == {"latency_s": Provenance.PREDICTED}


def test_what_is_measured_on_the_front_is_held_to_the_limit(digits_home):
    """The model was wrong: what it surely meets is missed by what the device says."""
    limits = [{"metric": "latency_s", "max": 2e-9, "device": "local-cpu"}]
    hopeful = Foresight("latency_s", 1e-9, 0.5e-9, 1.5e-9, 1, 1, None, [])
    outcome = try_half(digits_home, hopeful, limits=limits)
    assert outcome.state is TrialState.INFEASIBLE
    assert outcome.sources == {"latency_s": Provenance.MEASURED}


def test_without_a_device_nothing_is_foreseen(digits_home):
    outcome = evaluate(digits_spec(), Sources(), half("fp32"), digits_home.key, digits_home.folder)
    assert outcome.sources == {}
