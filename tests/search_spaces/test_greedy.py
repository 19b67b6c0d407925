"""The greedy sampler: losses from probes, programs that find the best designs, the exact front where losses add up."""

from itertools import product

import numpy as np
import pytest

from search_spaces.batch_costs import BatchCosts
from search_spaces.check import check_spec
from search_spaces.choice_losses import choice_losses, measured_shapes
from search_spaces.cost_tables import Range, cost_tables
from search_spaces.design import Design, Kind
from search_spaces.foreseen import ForeseenLimits
from search_spaces.objectives import TrialState
from search_spaces.projection import Projection
from search_spaces.samplers import ToldTrial, make_sampler
from search_spaces.samplers.integer_program import IntegerProgram
from search_spaces.samplers.probes import choose_anchors, least_changed, probes
from search_spaces.samplers.whole_designs import WholeDesigns
from search_spaces.sensitivity import Sensitivity, prior_shape
from search_spaces.space import Decision, Space
from search_spaces.spec import GreedySpec, LimitSpec, SearchSpec
from search_spaces.testing import chain_space, contract_spec
from tests.random_small_spaces import small_space
from tests.search_spaces.test_batch_costs import space_on
from tests.search_spaces.test_budgets import (
    KNOWN,
    budget_spec,
    check_that_budgets_hold,
    faults_of,
    spec_with,
    tight_limit,
)

ERROR = "mean_absolute_error"  # a score that is learned as it is, so that losses add up exactly


def levels_of(space):
    return [len(decision.choices) for decision in space.decisions]


def greedy_spec(trials=40, cost="macs", limits=(), **options):
    spec = contract_spec().model_dump(mode="json")
    spec["objectives"] = [{"metric": ERROR, "direction": "minimize"}]
    spec["objectives"] += [{"metric": cost, "direction": "minimize"}] if cost else []
    spec |= {"sampler": {"name": "greedy", "greedy": options}, "budget": {"trials": trials}, "limits": list(limits)}
    return SearchSpec.model_validate(spec)


def rising_losses(space, generator):
    """Of each decision what its choices lose: 0 at the base, and the more the further from it."""
    return [np.concatenate([[0], np.sort(generator.uniform(0.2, 1, level - 1))]) for level in levels_of(space)]


def loss_of(row, losses):
    return sum(loss[choice] for loss, choice in zip(losses, row, strict=True))


def play(sampler, space, losses, trials, *, history=(), memos=None):
    """Designs that were proposed, in order; each loses what its choices do. Puts the memos of all into `memos`."""
    rows, memos = list(history), {} if memos is None else memos

    def told(number, row):
        values = {ERROR: 1 + float(loss_of(row, losses))}
        memo = memos.get(row, {})
        return ToldTrial(number, space.design_at(row), TrialState.SUCCEEDED, values, {}, memo, row in history)

    sampler.tell([told(number, row) for number, row in enumerate(rows)])
    for number in range(len(rows), len(rows) + trials):
        proposals = sampler.ask(1, number, [])
        if not proposals:
            break
        rows.append(space.indices_of(proposals[0].design))
        memos[rows[-1]] = dict(proposals[0].memo)
        sampler.tell([told(number, rows[-1])])
    return rows[len(history) :]


def front_of(rows, losses, costs):
    """The designs that no other one beats, one for each pair of loss and cost."""
    points = sorted((cost, loss_of(row, losses), row) for row, cost in zip(rows, costs, strict=True))
    front, least = [], np.inf
    for _, loss, row in points:
        if loss < least - 1e-9:
            front.append(row)
            least = loss
    return front


class TestExactFront:
    @pytest.mark.usefixtures("either_way")
    @pytest.mark.parametrize("seed", range(2))
    def test_where_losses_add_up_the_whole_front_is_found_and_nothing_else_is_tried(self, seed):
        space = chain_space([3, 3, 3, 3, 3])
        losses = rising_losses(space, np.random.default_rng(seed))
        everything = list(product(range(3), repeat=5))
        costs = BatchCosts(space)(everything, ["macs"])["macs"]
        front = front_of(everything, losses, costs)
        probed = 1 + 5 * 2
        tried = play(make_sampler(greedy_spec(trials=50, probe_share=1), space), space, losses, probed + len(front))
        assert all(sum(choice > 0 for choice in row) <= 1 for row in tried[:probed])
        # The reference is on the front, and maybe some probes: what is tried beyond the front is no more than that.
        assert set(front) <= set(tried)
        known = set(front) & set(tried[:probed])
        assert set(tried[probed : probed + len(front) - len(known)]) == set(front) - known

    def test_the_first_design_spends_what_a_limit_allows(self):
        space = chain_space([6] * 6)
        losses = rising_losses(space, np.random.default_rng(5))
        most = 0.6 * BatchCosts(space)([(0,) * 6], ["macs"])["macs"][0]
        spec = greedy_spec(trials=10, limits=[{"metric": "macs", "max": most}])
        tried = play(make_sampler(spec, space), space, losses, 8)
        costs = BatchCosts(space)(tried, ["macs"])["macs"]
        assert (costs <= most).all()
        assert costs[6] > 0.97 * most  # behind the reference and five probes
        assert len(set(costs[6:])) == 2

    def test_without_a_cost_among_the_objectives_the_most_is_spent(self):
        space = chain_space([6] * 6)
        losses = rising_losses(space, np.random.default_rng(1))
        most = 0.5 * BatchCosts(space)([(0,) * 6], ["macs"])["macs"][0]
        spec = greedy_spec(trials=26, cost="", limits=[{"metric": "macs", "max": most}])
        tried = play(make_sampler(spec, space), space, losses, 26)
        costs = BatchCosts(space)(tried, ["macs"])["macs"]
        assert (costs <= most).all()
        assert costs[14:].mean() > 0.85 * most
        assert min(loss_of(row, losses) for row in tried[14:]) < min(loss_of(row, losses) for row in tried[:14])


@pytest.fixture(params=[0, 10**6], ids=["program", "enumeration"])
def either_way(request, monkeypatch):
    monkeypatch.setattr("search_spaces.samplers.whole_designs.MOST_DESIGNS", request.param)
    monkeypatch.setattr("search_spaces.samplers.integer_program.GAP", 0.0)


class TestWholeDesigns:
    @pytest.mark.usefixtures("either_way")
    def test_they_are_those_that_lose_least_at_their_costs(self):
        """Over random spaces of every kind of decision, for MACs and for sizes, at budgets from tight to loose."""
        compared = 0
        for seed in range(40):
            generator = np.random.default_rng(seed)
            space = small_space(generator)
            if space.size() > 20_000:
                continue
            everything = list(product(*map(range, levels_of(space))))
            losses = [generator.random(level) for level in levels_of(space)]
            total = np.array([loss_of(row, losses) for row in everything])
            limits = ForeseenLimits(space, greedy_spec())
            whole = WholeDesigns(levels_of(space), limits, ["macs", "size_bytes"], None)
            for metric in ("macs", "size_bytes"):
                costs = limits.costs(everything, [metric])[metric]
                for share in (0.0, 0.2, 0.7):
                    budget = costs.min() + share * np.ptp(costs)
                    found = whole.at(metric, budget, losses)
                    assert whole.cost(found, metric) <= budget
                    assert loss_of(found, losses) == pytest.approx(total[costs <= budget].min(), abs=1e-6)
                    compared += 1
                assert whole.at(metric, costs.min() - 1, losses) is None
                assert whole.span(metric, everything[0])[0] == costs.min()
        assert compared > 60

    def test_programs_count_as_whole_designs_do(self):
        """What the program was told that its designs cost is what they cost: MACs and sizes, of any small space."""
        for seed in range(40):
            space = small_space(np.random.default_rng([seed, 1]))
            costs = BatchCosts(space)
            tables = cost_tables(costs, levels_of(space), ["macs", "size_bytes"])
            program = IntegerProgram(levels_of(space), tables)
            losses = rising_losses(space, np.random.default_rng(seed))
            whole = costs([(0,) * len(space.decisions)], ["macs", "size_bytes"])
            found = program(losses, {"macs": Range(most=0.8 * whole["macs"][0])}, "size_bytes")
            told = costs([found], ["macs", "size_bytes"])
            assert tables([found])[0].tolist() == [told["macs"][0], told["size_bytes"][0]]
            assert told["macs"][0] <= 0.8 * whole["macs"][0]

    @pytest.mark.usefixtures("either_way")
    def test_another_limit_is_kept_too(self):
        space = chain_space([4, 4, 4, 4])
        generator = np.random.default_rng(3)
        everything = list(product(range(4), repeat=4))
        losses = rising_losses(space, generator)
        costs = BatchCosts(space)(everything, ["macs", "peak_activation_bytes"])
        peak = float(np.quantile(costs["peak_activation_bytes"], 0.3))
        spec = greedy_spec(limits=[{"metric": "peak_activation_bytes", "max": peak}])
        whole = WholeDesigns(levels_of(space), ForeseenLimits(space, spec), ["macs"], None)
        budget = 0.5 * costs["macs"].max()
        found = whole.at("macs", budget, losses)
        assert whole.cost(found, "macs") <= budget
        assert whole.cost(found, "peak_activation_bytes") <= peak

    @pytest.mark.usefixtures("either_way")
    def test_no_solution_is_over_a_limit_whatever_it_is_on(self):
        """With no probes but the reference: what budgets are solved for comes at once."""
        suggested = 0
        for seed in range(60):
            generator = np.random.default_rng(seed)
            space = small_space(generator)
            spec = budget_spec([tight_limit(space, generator) for _ in range(2)], "greedy", seed)
            sampler = spec.sampler.model_copy(update={"greedy": GreedySpec(probe_share=0.0)})
            suggested += check_that_budgets_hold(
                space, spec.model_copy(update={"sampler": sampler}), generator, rounds=2
            )
        assert suggested > 100

    @pytest.mark.parametrize("device", ["bit-fusion-edge", "bit-serial-edge"])
    def test_latency_that_tables_tell_only_nearly_is_kept_and_better_spent_than_by_descending(self, device):
        space = space_on(device)
        spec = spec_with(device=device)
        limits = ForeseenLimits(space, spec)
        whole = WholeDesigns(levels_of(space), limits, ["latency_s"], device)
        generator = np.random.default_rng(0)
        losses = [prior_shape(decision) * generator.lognormal(0, 1) for decision in space.decisions]
        least, most = whole.span("latency_s", least_changed(space))
        ratios = []
        for share in (0.2, 0.5):
            budget = least + share * (most - least)
            found = whole.at("latency_s", budget, losses)
            assert whole.cost(found, "latency_s") <= budget
            beside = limits.beside(LimitSpec(metric="latency_s", max=budget, device=device))
            descended = Projection(levels_of(space), beside)(least_changed(space), losses)
            ratios.append(loss_of(found, losses) / loss_of(descended, losses))
        assert max(ratios) <= 1
        assert min(ratios) < 0.95

    def test_where_the_solver_has_no_time_designs_are_descended(self, monkeypatch):
        monkeypatch.setattr("search_spaces.samplers.integer_program.TIME_LIMIT_S", 0.0)
        space = chain_space([6] * 8)
        losses = rising_losses(space, np.random.default_rng(2))
        whole = WholeDesigns(levels_of(space), ForeseenLimits(space, greedy_spec()), ["macs"], None)
        least, most = whole.span("macs", (0,) * 8)
        found = whole.at("macs", (least + most) / 2, losses)
        assert whole.cost(found, "macs") <= (least + most) / 2


class TestProbes:
    def space(self):
        return check_spec(spec_with(), KNOWN).space

    def probes(self, space, limits):
        anchors = choose_anchors(space, limits, Projection(levels_of(space), limits))
        return anchors, probes(space, anchors, limits, "macs")

    def test_no_decision_gets_a_second_before_all_have_one(self):
        space = self.space()
        anchors, found = self.probes(space, ForeseenLimits(space, spec_with()))
        assert found[0] == anchors.reference == (0,) * len(space.decisions)
        changed = [next(d for d, choice in enumerate(row) if choice) for row in found[1:]]
        count = len(space.decisions)
        assert set(changed[:count]) == set(range(count))
        assert len(changed) > count
        ends = {d: row[d] for d, row in zip(changed[:count], found[1:], strict=False)}
        assert all(choice == levels_of(space)[d] - 1 for d, choice in ends.items())

    def test_where_the_base_is_over_a_limit_the_reference_is_a_uniform_design_within_it(self):
        space = self.space()
        base = BatchCosts(space)([(0,) * len(space.decisions)], ["macs"])["macs"][0]
        spec = spec_with(limits=[{"metric": "macs", "max": 0.6 * base}])
        anchors, found = self.probes(space, ForeseenLimits(space, spec))
        assert anchors.reference in [space.indices_of(design) for design in space.uniform]
        assert (BatchCosts(space)(found, ["macs"])["macs"] <= 0.6 * base).all()
        assert all(sum(one != other for one, other in zip(row, found[0], strict=True)) == 1 for row in found[1:])

    def test_methods_are_probed_where_something_is_pruned(self):
        chain = chain_space([4, 4, 4])
        methods = Decision("importance/network", Kind.IMPORTANCE, "network", ("a", "b", "c"))
        uniform = tuple(Design.of({**design, methods.name: "a"}) for design in chain.uniform)
        space = Space(chain.network, (*chain.decisions, methods), uniform)
        anchors, found = self.probes(space, ForeseenLimits(space, greedy_spec()))
        assert anchors.made[0] > 0
        assert {(*anchors.made[:3], method) for method in range(3)} <= set(found)

    def test_the_share_of_the_budget_goes_to_them(self):
        space = self.space()
        losses = [prior_shape(decision) for decision in space.decisions]
        uniform = [space.indices_of(design) for design in space.uniform]
        spec = spec_with(sampler={"name": "greedy", "greedy": {"probe_share": 0.25}}, budget={"trials": 24})
        memos = {}
        tried = play(make_sampler(spec, space), space, losses, 12, history=uniform, memos=memos)
        assert all(sum(choice > 0 for choice in row) == 1 for row in tried[:6])
        assert [memos[row] for row in tried] == [{}] * 6 + [{"solved": True}] * 6


class TestMeasuredShapes:
    decision = Decision("channels/a", Kind.CHANNELS, "a", (10, 8, 6, 4, 2))
    other = Decision("channels/b", Kind.CHANNELS, "b", (10, 8, 6, 4, 2))
    method = Decision("importance/network", Kind.IMPORTANCE, "network", ("a", "b", "c"))

    def shapes(self, decisions, heard, anchor=None):
        return measured_shapes(decisions, [anchor or (0,) * len(decisions)] * len(decisions), heard)

    def test_between_probes_losses_run_along_the_prior(self):
        (shape,) = self.shapes([self.decision], {(0,): 5.0, (4,): 3.0})
        prior = prior_shape(self.decision)
        assert shape == pytest.approx(2.0 * prior / prior[4])
        (shape,) = self.shapes([self.decision], {(0,): 5.0, (2,): 4.9, (4,): 3.0})
        middle = (prior[3] - prior[2]) / (prior[4] - prior[2])
        assert shape[[0, 2, 3, 4]] == pytest.approx([0, 0.1, 0.1 + middle * 1.9, 2.0])

    def test_beyond_them_they_go_on_as_they_went(self):
        (shape,) = self.shapes([self.decision], {(0,): 5.0, (2,): 4.0})
        prior = prior_shape(self.decision)
        assert shape == pytest.approx(prior / prior[2])
        (shape,) = self.shapes([self.decision], {(2,): 4.0, (4,): 3.0}, anchor=(2,))
        assert shape == pytest.approx(prior / (prior[4] - prior[2]))

    def test_what_was_not_probed_loses_as_the_others_do_and_gains_are_luck(self):
        heard = {(0, 0): 5.0, (4, 0): 3.0}
        first, second = self.shapes([self.decision, self.other], heard)
        assert second == pytest.approx(first)
        heard = {(0, 0): 5.0, (4, 0): 3.0, (0, 4): 5.5}
        first, second = self.shapes([self.decision, self.other], heard)
        assert (np.diff(second) > 0).all()
        assert second[4] < 0.05 * first[4]

    def test_without_the_anchor_there_is_only_the_prior(self):
        (shape,) = self.shapes([self.decision], {(4,): 3.0, (2,): 4.0})
        assert shape == pytest.approx(prior_shape(self.decision))

    def test_methods_may_be_better_than_the_anchors(self):
        decisions = [self.decision, self.method]
        _, shape = self.shapes(decisions, {(4, 0): 3.0, (4, 1): 3.5, (4, 2): 2.0}, anchor=(4, 0))
        assert shape == pytest.approx([0.5, 0.0, 1.5])

    def test_sizes_correct_what_probes_told(self):
        """Probes of one layer were twice too bad; many whole designs say so."""
        decisions = [self.decision, self.other]
        shapes = [2 * prior_shape(self.decision), prior_shape(self.other)]
        model, generator = Sensitivity(decisions, shapes), np.random.default_rng(0)
        for _ in range(200):
            row = generator.integers(5, size=2)
            model.add(row, -float(sum(prior_shape(self.decision)[row])))
        first, second = model.losses()
        assert first == pytest.approx(second, rel=0.05)


class TestChoiceLosses:
    decisions = (TestMeasuredShapes.decision, TestMeasuredShapes.other)

    def heard(self, quality, rows):
        return {tuple(map(int, row)): quality(row) for row in rows}

    def test_whole_designs_tell_of_choices_that_were_never_changed_alone(self):
        """A loss that no prior has: only the third choice of the first decision costs anything."""
        rows = list(product(range(1, 5), repeat=2))
        first, second = choice_losses(self.decisions, [(0, 0)] * 2, self.heard(lambda row: -2.0 * (row[0] == 2), rows))
        assert first.argmax() == 2
        assert first[2] == pytest.approx(2.0, abs=0.5)
        assert second.max() < 0.25 * first.max()

    def test_what_only_guesses_does_not_make_losses_look_small(self):
        """Both decisions lose 4 at their ends, and quality ends at -3: of both together that shows nothing."""
        truth = 4 * prior_shape(self.decisions[0]) / prior_shape(self.decisions[0]).max()
        probes = [(0, 0), (3, 0), (0, 3), (2, 0), (0, 2)]
        rows = [*probes, *((one, other) for one in (3, 4) for other in (3, 4))]
        heard = self.heard(lambda row: max(-float(truth[row[0]] + truth[row[1]]), -3.0), rows)
        for losses in choice_losses(self.decisions, [(0, 0)] * 2, heard):
            assert losses == pytest.approx(truth, abs=0.2)

    @pytest.mark.parametrize("count", [1, 2])
    def test_one_design_or_two_alike_tell_nothing_wrong(self, count):
        heard = {(3, choice): -1.0 for choice in range(count)}
        assert all((np.diff(losses) > 0).all() for losses in choice_losses(self.decisions, [(0, 0)] * 2, heard))

    def test_before_anything_is_known_there_is_the_prior(self):
        first, _ = choice_losses(self.decisions, [(0, 0)] * 2, {})
        assert first == pytest.approx(prior_shape(self.decisions[0]))


class TestOptions:
    def test_they_are_refused_for_other_samplers(self):
        spec = spec_with(sampler={"name": "tpe", "greedy": {"probe_share": 0.3}})
        assert "options of the sampler greedy" in faults_of(spec)["/sampler/greedy"]
        assert check_spec(spec_with(sampler={"name": "greedy", "greedy": {"probe_share": 0.3}}), KNOWN)

    @pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), "half"])
    def test_shares_out_of_range_are_refused(self, share):
        with pytest.raises(ValueError, match="probe_share"):
            spec_with(sampler={"name": "greedy", "greedy": {"probe_share": share}})
