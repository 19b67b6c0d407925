"""Budgets: what shares come to, that no sampler goes over them, certificates, and what cannot be met is said."""

import re
from time import perf_counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search_spaces.accelerators import bit_fusion
from search_spaces.accelerators.layers import layers_of
from search_spaces.accelerators.models import MODELS, simulate
from search_spaces.apply import apply
from search_spaces.budgets import Budget, budgets_of, certify, settled, with_budgets
from search_spaces.capabilities import DeviceCapabilities
from search_spaces.check import check_spec
from search_spaces.costs import symbolic_values
from search_spaces.faults import SpecError
from search_spaces.foreseen import ForeseenLimits
from search_spaces.known import Known
from search_spaces.network import in_precision
from search_spaces.objectives import SYMBOLIC_METRICS, Metric, Provenance, TrialState
from search_spaces.precision import parse_precision
from search_spaces.projection import Projection
from search_spaces.reach import symbolic_reach
from search_spaces.samplers import SAMPLERS, ToldTrial, make_sampler
from search_spaces.sensitivity import Sensitivity
from search_spaces.spec import LimitSpec, SearchSpec
from tests.random_small_spaces import small_space
from tests.random_spaces import spaces
from workers.new_trials import judge_costs

CPU = DeviceCapabilities(
    name="cpu", description="", precisions=("fp32", "w8a8"), channel_divisor=8, metrics=("latency_s",)
)
KNOWN = Known(devices={"cpu": CPU, **{name: model.capabilities for name, model in MODELS.items()}})


def spec_with(*budgets, device=None, **changes):
    objectives = [{"metric": "accuracy", "direction": "maximize"}]
    if device is not None:
        objectives.append({"metric": "latency_s", "direction": "minimize", "device": device})
    return SearchSpec.model_validate(
        {
            "name": "budgeted",
            "network": {"family": "mobilenet_v1", "width": 0.25, "input": [1, 28, 28], "stem_stride": 1},
            "dataset": {"name": "fashion_mnist"},
            "space": {"prune_ratio": {"high": 0.7}, "precision": {"choices": ["fp32", "w8a8"]}},
            "objectives": objectives,
            "budget_limits": list(budgets),
            **changes,
        }
    )


def bits_spec(*budgets, device, **changes):
    space = {
        "prune_ratio": {"high": 0.7},
        "weight_bits": {"choices": [2, 4, 6, 8]},
        "activation_bits": {"choices": [2, 4, 6, 8]},
    }
    return spec_with(*budgets, device=device, space=space, **changes)


def faults_of(spec):
    with pytest.raises(SpecError) as caught:
        check_spec(spec, KNOWN)
    return {fault.pointer: fault.message for fault in caught.value.faults}


class TestWhatSharesComeTo:
    def test_a_share_of_the_base_is_told_at_once_where_the_network_decides(self):
        checked = check_spec(spec_with({"metric": "macs", "at_most": 0.5}), KNOWN)
        (budget,) = checked.budgets
        assert budget.base == symbolic_values(checked.network)["macs"]
        assert budget.bound == 0.5 * budget.base
        (limit,) = with_budgets(checked.spec, checked.budgets).limits
        assert (limit.metric, limit.max) == ("macs", budget.bound)

    def test_of_a_precision_it_is_of_the_whole_network_in_that(self):
        budget = {"metric": "size_bytes", "at_most": 0.6, "relative_to": "w8a8"}
        checked = check_spec(spec_with(budget), KNOWN)
        in_8_bits = symbolic_values(in_precision(checked.network, parse_precision("w8a8")))
        assert checked.budgets[0].base == in_8_bits["size_bytes"]

    @pytest.mark.parametrize("relative_to", ["base", "w8a8"])
    def test_on_a_device_of_integers_the_base_is_told_in_its_first_precision(self, relative_to):
        budget = {"metric": "latency_s", "device": "bit-fusion-edge", "at_most": 0.9, "relative_to": relative_to}
        checked = check_spec(bits_spec(budget, device="bit-fusion-edge"), KNOWN)
        in_8_bits = in_precision(checked.network, parse_precision("w8a8"))
        assert checked.budgets[0].base == simulate("bit-fusion-edge", in_8_bits)[Metric.LATENCY_S]

    def test_what_must_be_measured_is_open_until_it_is(self):
        checked = check_spec(spec_with({"metric": "latency_s", "device": "cpu", "at_most": 0.6}, device="cpu"), KNOWN)
        (budget,) = checked.budgets
        assert budget.bound is None
        assert with_budgets(checked.spec, checked.budgets).limits == ()
        (known,) = settled(checked.budgets, {"latency_s base": 0.010})
        assert known.bound == pytest.approx(0.006)

    def test_coded_maps_leave_a_simulated_device_to_be_asked(self):
        budget = {"metric": "energy_j", "device": "bit-fusion-edge", "at_most": 0.9}
        spec = bits_spec(budget, device="bit-fusion-edge", evaluation={"activation_codec": "zvc"})
        assert budgets_of(spec, check_spec(spec, KNOWN).network)[0].base is None


class TestRefusals:
    def test_a_budget_that_no_design_meets_names_the_layers_that_hold_it_up(self):
        message = faults_of(spec_with({"metric": "macs", "at_most": 0.01}))["/budget_limits/0/at_most"]
        assert "block" in message
        assert "pointwise" in message
        least = float(message.rsplit(" ", 1)[1])
        assert check_spec(spec_with({"metric": "macs", "at_most": least * 1.01}), KNOWN)

    @pytest.mark.parametrize(
        ("device", "metric"),
        [("bit-serial-edge", "latency_s"), ("bit-fusion-edge", "energy_j"), ("roofline-a100", "latency_s")],
    )
    def test_of_a_simulated_device_by_what_each_takes_there(self, device, metric):
        """The shares are those of the cheapest design, each layer as the device tells it of that layer alone."""
        budget = {"metric": metric, "device": device, "at_most": 1e-4}
        spec = spec_with(budget, device=device) if device == "roofline-a100" else bits_spec(budget, device=device)
        message = faults_of(spec)["/budget_limits/0/at_most"]
        assert "MACs" not in message
        named = re.findall(r"(\S+) \((\d+)%\)", message)
        assert len(named) == 3
        shares = [int(share) for _, share in named]
        assert shares == sorted(shares, reverse=True)
        assert 0 < sum(shares) < 100

    def test_of_a_simulated_device_the_slowest_layer_is_named_first(self):
        """Of a depthwise layer with few MACs and one product a cycle, which MACs alone would never name."""
        budget = {"metric": "latency_s", "device": "bit-fusion-edge", "at_most": 1e-4}
        message = faults_of(bits_spec(budget, device="bit-fusion-edge"))["/budget_limits/0/at_most"]
        named = re.search(r"is in (\S+) \((\d+)%\)", message)
        checked = check_spec(bits_spec(device="bit-fusion-edge"), KNOWN)
        network, space = checked.network, checked.space
        smallest = apply(network, space.design_at(tuple(len(one.choices) - 1 for one in space.decisions)))
        found = bit_fusion.LayerFigures(layers_of(smallest), bit_fusion.EDGE).cycles
        slowest = int(found.argmax())
        assert named[1] == smallest.compute_nodes()[slowest].name
        assert int(named[2]) == round(100 * found[slowest] / found.sum())

    def test_a_limit_on_a_simulated_device_that_no_design_meets_is_refused_likewise(self):
        def limited(most):
            limit = {"metric": "latency_s", "device": "bit-fusion-edge", "max": most}
            return bits_spec(device="bit-fusion-edge", limits=[{"metric": "macs", "max": 1e12}, limit])

        message = faults_of(limited(1e-9))["/limits/1/max"]
        assert "depthwise" in message
        least = float(re.search(r"space is (\S+);", message)[1])
        assert check_spec(limited(1.001 * least), KNOWN)
        assert "/limits/1/max" in faults_of(limited(0.99 * least))

    def test_a_percentage_where_a_share_is_asked_for_is_warned_of(self):
        checked = check_spec(spec_with({"metric": "macs", "at_most": 50}), KNOWN)
        (warning,) = (one for one in checked.warnings if "0.5" in one)
        assert "50 times the base's macs" in warning
        usual = check_spec(spec_with({"metric": "macs", "at_most": 0.5}), KNOWN)
        assert not any("times the base" in one for one in usual.warnings)

    def test_what_a_device_must_measure_is_no_reason_to_refuse(self):
        limit = {"metric": "latency_s", "device": "cpu", "max": 1e-9}
        assert check_spec(spec_with(device="cpu", limits=[limit]), KNOWN)

    def test_of_memory_by_weights_and_maps(self):
        budget = {"metric": "memory_bytes", "device": "bit-fusion-edge", "at_most": 1e-4}
        message = faults_of(bits_spec(budget, device="bit-fusion-edge"))["/budget_limits/0/at_most"]
        assert len(re.findall(r"\S+ \(\d+%\)", message)) == 3

    def test_budgets_that_exclude_each_other(self):
        """One keeps bits apart from channels: few MACs and few bytes are each within reach."""
        few_macs = {"metric": "macs", "at_most": 0.3}
        impossible = faults_of(spec_with(few_macs, limits=[{"metric": "parameters", "min": 200_000}]))
        assert "no design was found that keeps all" in impossible["/budget_limits"]

    def test_limits_that_exclude_each_other(self):
        few, many = {"metric": "macs", "max": 400_000}, {"metric": "parameters", "min": 200_000}
        assert check_spec(spec_with(limits=[few]), KNOWN)
        assert check_spec(spec_with(limits=[many]), KNOWN)
        impossible = faults_of(spec_with(limits=[few, many]))
        assert "no design was found that keeps all" in impossible["/limits"]

    @pytest.mark.parametrize(
        ("budget", "pointer", "hint"),
        [
            ({"metric": "accuracy", "at_most": 0.5}, "/budget_limits/0/metric", "no cost"),
            ({"metric": "macs", "at_most": 0.5, "relative_to": "int8"}, "/budget_limits/0/relative_to", "w8a8"),
            ({"metric": "activation_bytes", "at_most": 0.5}, "/budget_limits/0/metric", "a budget is of"),
        ],
    )
    def test_what_no_base_has(self, budget, pointer, hint):
        assert hint in faults_of(spec_with(budget))[pointer]

    def test_a_precision_that_the_device_does_not_execute(self):
        budget = {"metric": "latency_s", "device": "cpu", "at_most": 0.6, "relative_to": "w4a4"}
        assert "does not execute w4a4" in faults_of(spec_with(budget, device="cpu"))["/budget_limits/0/relative_to"]

    def test_energy_of_a_device_that_cannot_tell_it(self):
        budget = {"metric": "energy_j", "device": "cpu", "at_most": 0.6}
        assert "cannot tell energy_j" in faults_of(spec_with(budget, device="cpu"))["/budget_limits/0/metric"]


def certificates(space, spec, design):
    return list(certify(apply(space.network, design), spec, []))


def told(number, proposal, generator):
    values = {"accuracy": float(generator.random())}
    state = TrialState.FAILED if number % 7 == 6 else TrialState.SUCCEEDED
    return ToldTrial(number, proposal.design, state, values if state is TrialState.SUCCEEDED else {}, {}, {}, False)


def tight_limit(space, generator):
    """A limit of some metric somewhere between the least and the most that designs of the space take."""
    metric = str(generator.choice(sorted(SYMBOLIC_METRICS)))
    reach = symbolic_reach(space)[Metric(metric)]
    share = float(generator.choice([0.02, 0.2, 0.5, 0.9]))
    return LimitSpec(metric=metric, max=reach.least + share * (reach.greatest - reach.least))


def budget_spec(limits, sampler, seed):
    settings = {"ddpg": {"hidden": 8}} if sampler == "ddpg" else {}  # how large its agent is keeps no budget
    spec = spec_with(sampler={"name": sampler, "seed": seed, **settings}, budget={"trials": 8})
    return spec.model_copy(update={"limits": tuple(limits)})


def check_that_budgets_hold(space, spec, generator, rounds):
    """Play a search; returns how many designs were suggested, none of which may be over."""
    sampler, number = make_sampler(spec, space), 0
    for _ in range(rounds):
        proposals = sampler.ask(2, number, [])
        for proposal in proposals:
            network = apply(space.network, proposal.design)
            values = symbolic_values(network)
            assert all(values[limit.metric] <= limit.max for limit in spec.limits), (spec.sampler.name, space)
            assert all(one.is_kept for one in certify(network, spec, []))
        sampler.tell([told(number + offset, proposal, generator) for offset, proposal in enumerate(proposals)])
        number += len(proposals)
    return number


@pytest.mark.parametrize("name", SAMPLERS)
def test_no_sampler_suggests_a_design_over_a_budget_in_thousands_of_spaces(name):
    """10,000 random spaces, divided among the samplers, each with one or two limits from tight to loose."""
    each = -(-10_000 // len(SAMPLERS))
    suggested = with_any = 0
    for seed in range(each):
        generator = np.random.default_rng([seed, len(name)])
        space = small_space(generator)
        limits = [tight_limit(space, generator) for _ in range(int(generator.integers(1, 3)))]
        count = check_that_budgets_hold(space, budget_spec(limits, name, seed), generator, rounds=1)
        suggested, with_any = suggested + count, with_any + (count > 0)
    assert with_any > 0.5 * each  # a sampler that suggests nothing would keep every budget
    assert suggested > 0.5 * each


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(spaces(), st.integers(0, 10_000), st.sampled_from(sorted(SAMPLERS)))
def test_nor_over_time_in_spaces_of_networks_with_every_op(space, seed, name):
    generator = np.random.default_rng(seed)
    limits = [tight_limit(space, generator)]
    check_that_budgets_hold(space, budget_spec(limits, name, seed), generator, rounds=4)


@pytest.mark.parametrize("device", sorted(MODELS))
@pytest.mark.parametrize("name", SAMPLERS)
def test_nor_over_the_latency_of_a_simulated_device(name, device):
    # What starting kernels takes is most of what so small a network takes on a large chip.
    at_most = 0.9 if MODELS[device].capabilities.separate_bits else 0.998
    budget = {"metric": "latency_s", "device": device, "at_most": at_most}
    if MODELS[device].capabilities.separate_bits:
        spec = bits_spec(budget, device=device, sampler={"name": name})
    else:
        spec = spec_with(budget, device=device, sampler={"name": name}, space={"prune_ratio": {"high": 0.7}})
    checked = check_spec(spec, KNOWN)
    spec = with_budgets(checked.spec, checked.budgets)
    proposals = make_sampler(spec, checked.space).ask(5, 0, [])
    assert proposals
    for proposal in proposals:
        network = apply(checked.network, proposal.design)
        assert simulate(device, network)[Metric.LATENCY_S] <= checked.budgets[0].bound
        (certificate,) = certify(network, spec, checked.budgets)
        assert certificate.is_kept
        assert certificate.share <= at_most


class TestProjection:
    def space(self):
        return check_spec(spec_with(), KNOWN).space

    def projected(self, space, share, losses, start):
        base = symbolic_values(space.network)["macs"]
        spec = spec_with().model_copy(update={"limits": (LimitSpec(metric="macs", max=share * base),)})
        limits = ForeseenLimits(space, spec)
        return Projection([len(one.choices) for one in space.decisions], limits)(start, losses)

    def test_what_fits_is_left_alone(self):
        space = self.space()
        start = tuple(len(decision.choices) - 1 for decision in space.decisions)
        assert self.projected(space, 0.9, Sensitivity(space.decisions).losses(), start) == start

    def test_nothing_that_could_be_given_back_is_kept(self):
        """No single decision of the result can be moved back to what was wanted."""
        space = self.space()
        start = (0,) * len(space.decisions)
        losses = Sensitivity(space.decisions).losses()
        for share in (0.3, 0.5, 0.8):
            found = self.projected(space, share, losses, start)
            base = symbolic_values(space.network)["macs"]
            for decision, choice in enumerate(found):
                if losses[decision][choice] > 0:
                    back = (*found[:decision], 0, *found[decision + 1 :])
                    assert symbolic_values(apply(space.network, space.design_at(back)))["macs"] > share * base

    def test_it_loses_less_than_lowering_from_the_last_decision_to_the_first(self):
        """HAQ's way, round after round, on losses that differ from layer to layer."""
        space = self.space()
        base, levels = symbolic_values(space.network)["macs"], [len(one.choices) for one in space.decisions]
        shapes = Sensitivity(space.decisions).losses()
        ratios = []
        for seed in range(20):
            sizes = np.random.default_rng(seed).lognormal(0, 1.5, len(shapes))
            losses = [size * shape for size, shape in zip(sizes, shapes, strict=True)]
            found = self.projected(space, 0.5, losses, (0,) * len(levels))
            in_turn = round_robin(space, levels, 0.5 * base)
            ratios.append(loss_of(found, losses) / loss_of(in_turn, losses))
        assert max(ratios) < 1
        assert np.median(ratios) < 0.6

    def test_it_is_quick(self):
        space = self.space()
        losses = Sensitivity(space.decisions).losses()
        self.projected(space, 0.5, losses, (0,) * len(space.decisions))
        start = perf_counter()
        for _ in range(5):
            self.projected(space, 0.5, losses, (0,) * len(space.decisions))
        assert (perf_counter() - start) / 5 < 0.1


def loss_of(indices, losses):
    return sum(loss[index] for loss, index in zip(losses, indices, strict=True))


def round_robin(space, levels, most):
    place = [0] * len(levels)
    while True:
        for decision in reversed(range(len(levels))):
            if symbolic_values(apply(space.network, space.design_at(place)))["macs"] <= most:
                return tuple(place)
            place[decision] = min(place[decision] + 1, levels[decision] - 1)


class TestSensitivity:
    def test_learns_which_decisions_cost_most(self):
        decisions = check_spec(spec_with(), KNOWN).space.decisions
        model, generator = Sensitivity(decisions), np.random.default_rng(0)
        shapes = model.losses()
        truth = generator.lognormal(0, 1, len(decisions))
        for _ in range(200):
            row = generator.integers([len(one.choices) for one in decisions])
            loss = sum(size * shape[index] for size, shape, index in zip(truth, shapes, row, strict=True))
            model.add(row, 2.0 - loss + 0.02 * generator.standard_normal())
        matters = np.array([shape.max() > 0.1 for shape in shapes])  # 8 bits lose too little to be told from noise
        assert np.corrcoef(model.sizes()[matters], truth[matters])[0, 1] > 0.95
        assert (model.sizes() > 0).all()

    def test_before_anything_is_known_all_are_alike(self):
        decisions = check_spec(spec_with(), KNOWN).space.decisions
        assert (Sensitivity(decisions).sizes() == 1).all()


def test_certificates_say_the_share_and_whether_it_is_kept():
    checked = check_spec(spec_with({"metric": "macs", "at_most": 0.5}), KNOWN)
    spec = with_budgets(checked.spec, checked.budgets)
    (of_base,) = certify(checked.network, spec, checked.budgets)
    assert of_base.share == 1
    assert not of_base.is_kept
    assert of_base.to_json()["kept"] is False
    assert Budget.model_validate(checked.budgets[0].model_dump(mode="json")) == checked.budgets[0]


def test_a_certificate_is_relative_to_what_its_budget_is():
    """Of two budgets on one cost each to its own base, and of a plain limit to none."""
    of_base = {"metric": "size_bytes", "at_most": 0.5}
    of_bits = {"metric": "size_bytes", "at_most": 0.9, "relative_to": "w8a8"}
    limit = {"metric": "size_bytes", "max": 1e9}
    checked = check_spec(spec_with(of_base, of_bits, limits=[limit]), KNOWN)
    spec = with_budgets(checked.spec, checked.budgets)
    plain, first, second = certify(checked.network, spec, checked.budgets)
    assert plain.share is None
    assert first.share == 1
    assert second.share == pytest.approx(first.value / checked.budgets[1].base)
    assert second.share > 1.5


@pytest.mark.parametrize("device", ["bit-serial-edge", "bit-fusion-edge"])
def test_a_design_over_a_simulated_budget_ends_before_any_work(device):
    budget = {"metric": "latency_s", "device": device, "at_most": 0.9}
    checked = check_spec(bits_spec(budget, device=device), KNOWN)
    spec = with_budgets(checked.spec, checked.budgets)
    levels = [len(decision.choices) for decision in checked.space.decisions]
    dense = checked.space.design_at([0] * len(levels))
    cheapest = checked.space.design_at([count - 1 for count in levels])
    for design, is_over in ((dense, True), (cheapest, False)):
        network = apply(checked.network, design)
        outcome = judge_costs(network, spec, list(certify(network, spec, checked.budgets)))
        assert (outcome is not None) == is_over
        if outcome is not None:
            assert outcome.values["latency_s"] == simulate(device, network)[Metric.LATENCY_S]
            assert outcome.sources == {"latency_s": Provenance.SIMULATED}
            assert outcome.reason.startswith("latency_s ")
