"""The agent that walks layers: its networks, its walks and what it learns."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.apply import apply, structure_of
from search_spaces.batch_costs import BatchCosts
from search_spaces.build_space import build_space
from search_spaces.costs import symbolic_values
from search_spaces.faults import SpecError
from search_spaces.foreseen import ForeseenLimits
from search_spaces.objectives import TrialState
from search_spaces.parse import parse_spec
from search_spaces.samplers import ToldTrial, make_sampler
from search_spaces.samplers.actor_critic import ActorCritic, Batch
from search_spaces.samplers.cost_targets import CostTargets
from search_spaces.samplers.ddpg import rewards_of
from search_spaces.samplers.perceptron import Adam, Perceptron
from search_spaces.samplers.replay import Replay
from search_spaces.samplers.walk import Course, Walk, range_of, shifted
from search_spaces.samplers.walk_features import kept_by, steps_of
from search_spaces.spec import DdpgSpec, LimitSpec, SearchSpec, SpaceSpec
from search_spaces.testing import contract_spec, mixed, network_problem, play, told_baseline
from tests.random_small_spaces import small_network, small_space
from tests.random_spaces import any_device

PROBLEM = network_problem([8] * 12)
AGENT = {"hidden": 16, "batch": 16}


def even(states):
    return np.full(len(states), 0.5, dtype=np.float32)


def course_of(space, metric="macs", share=None, limits=()):
    costs = BatchCosts(space)
    by = range_of(costs, [len(one.choices) for one in space.decisions], metric)
    held = list(limits)
    if share is not None:
        held.append((LimitSpec(metric=metric, max=by.least + share * (by.most - by.least)), by.cheapest))
    targets = np.array([1.0 if share is None else share], dtype=np.float32)
    return Course(by, targets, tuple(held))


class TestPerceptron:
    def test_gradients_are_those_of_differences(self):
        generator = np.random.default_rng(0)
        drawn = Perceptron.drawn((5, 7, 6, 2), generator)
        network = Perceptron(drawn.sizes, drawn.parameters.astype(np.float64))  # differences need the digits
        inputs, outer = generator.standard_normal((9, 5)), generator.standard_normal((9, 2))
        trace = network.trace(inputs)
        parts = [(network.parameters, network.gradient(trace, outer)), (inputs, network.input_gradient(trace, outer))]
        for values, found in parts:
            direction, before = generator.standard_normal(values.shape), values.copy()
            sums = []
            for step in (1e-6, -1e-6):
                values[:] = before + step * direction
                sums.append((network(inputs) * outer).sum())
            values[:] = before
            assert (sums[0] - sums[1]) / 2e-6 == pytest.approx((found * direction).sum(), rel=1e-5)

    def test_adam_finds_the_least_of_a_parabola(self):
        place, adam = np.array([5.0, -3.0], dtype=np.float32), Adam(0.05, 2)
        for _ in range(2000):
            adam.step(place, 2 * (place - np.array([1.0, 2.0], dtype=np.float32)))
        assert place == pytest.approx([1.0, 2.0], abs=0.01)

    def test_the_first_step_of_adam_is_as_long_as_the_learning_rate(self):
        place = np.zeros(2, dtype=np.float32)
        Adam(0.1, 2).step(place, np.array([1e-3, -50.0], dtype=np.float32))
        assert place == pytest.approx([-0.1, 0.1], rel=1e-3)


class TestActorCritic:
    def test_it_learns_the_best_action_of_each_state(self):
        """One step, reward -(action - best)^2 with the best action told by the state."""
        generator = np.random.default_rng(1)
        agent = ActorCritic(2, DdpgSpec(hidden=32, actor_learning_rate=1e-3), generator)
        states = np.array([[0.0, 1.0], [1.0, 0.0]], dtype=np.float32)
        best = np.array([0.2, 0.7], dtype=np.float32)
        for _ in range(800):
            which = generator.integers(2, size=64)
            actions = generator.random(64).astype(np.float32)
            rewards = -((actions - best[which]) ** 2)
            last = np.ones(64, dtype=np.float32)
            agent.update(Batch(states[which], actions, rewards.astype(np.float32), states[which], last))
        assert agent.act(states) == pytest.approx(best, abs=0.1)

    def test_what_comes_later_counts(self):
        """Two steps: the first action is best at 0 for its own reward, and at 1 for what the second can get."""
        generator, found = np.random.default_rng(2), []
        for discount in (0.0, 1.0):
            settings = DdpgSpec(hidden=32, discount=discount, actor_learning_rate=1e-3, soft_update=0.05)
            agent = ActorCritic(2, settings, generator)
            for _ in range(800):
                is_last, before, actions = generator.random(64) < 0.5, generator.random(64), generator.random(64)
                states = np.stack([is_last, np.where(is_last, before, 0)], axis=1)
                rewards = np.where(is_last, 3 * before, -actions)
                after = np.stack([np.ones(64), actions], axis=1)
                agent.update(Batch(*(part.astype(np.float32) for part in (states, actions, rewards, after, is_last))))
            found.append(float(agent.act(np.zeros((1, 2), dtype=np.float32))[0]))
        assert found[0] < 0.2 < 0.8 < found[1]


class TestReplay:
    def test_old_episodes_make_room_and_steps_go_with_their_successors(self):
        replay = Replay(capacity=3, steps=4, features=2, columns=1)
        for number in range(5):
            states = np.stack([np.full(4, number), np.arange(4)], axis=1).astype(np.float32)
            replay.add(states, np.full(4, number, dtype=np.float32), np.array([float(number)]))
        assert sorted(replay.outcomes[:, 0]) == [2, 3, 4]
        batch = replay.batch(replay.outcomes[:, 0].astype(np.float32), 200, np.random.default_rng(0))
        assert set(batch.rewards) == {2, 3, 4}
        assert (batch.states[:, 0] == batch.rewards).all()
        assert (batch.actions == batch.rewards).all()
        assert (batch.next_states[:, 0] == batch.rewards).all()
        assert (batch.is_last == (batch.states[:, 1] == 3)).all()
        goes_on = batch.is_last == 0
        assert (batch.next_states[goes_on, 1] == batch.states[goes_on, 1] + 1).all()


class TestSteps:
    def test_layers_in_order_and_within_a_layer_channels_weights_activations(self):
        spec = {
            "prune_ratio": {"high": 0.5, "step": 0.25},
            "weight_bits": {"choices": [2, 4, 8]},
            "activation_bits": {"choices": [4, 8]},
            "importance": {"choices": ["l1", "l2"]},
        }
        kinds, counts = ["channels", "weight_bits", "activation_bits"], []
        for seed in range(20):
            network = small_network(np.random.default_rng(seed))
            space, _ = build_space(network, SpaceSpec.model_validate(spec), any_device(1))
            structure = structure_of(network)
            first, *others = [space.decisions[column] for column in steps_of(space, structure)]
            assert first.kind == "importance"
            place = {name: number for number, name in enumerate(structure.layers)}
            order = [(place[decision.target], kinds.index(decision.kind)) for decision in others]
            assert order == sorted(order)
            counts.append(len(order))
        assert max(counts) > 6

    def test_more_is_kept_by_more_channels_and_bits(self):
        for seed in range(40):
            space = small_space(np.random.default_rng(seed))
            for decision in space.decisions:
                if len(decision.choices) > 1 and decision.kind != "precision":
                    kept, sizes = kept_by(decision), np.array([int(choice) for choice in decision.choices])
                    assert (np.argsort(kept) == np.argsort(sizes)).all()
                    assert 0 <= kept.min() < kept.max() <= 1


class TestWalks:
    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 10_000), st.floats(0, 1), st.sampled_from(["macs", "size_bytes"]))
    def test_a_walk_keeps_its_target_and_is_replayed_as_it_was(self, seed, share, metric):
        """Whatever the policy: the clip leaves no step without a choice that keeps one limit within reach."""
        generator = np.random.default_rng(seed)
        space = small_space(generator)
        walk, course, seen = Walk(space, BatchCosts(space)), course_of(space, metric, share), []

        def policy(states):
            if len(states) == 1:
                seen.append(states[0])
            return generator.random(len(states)).astype(np.float32)

        found = walk.design(policy, lambda step, mean: float(generator.random()), course)
        cost = symbolic_values(apply(space.network, space.design_at(found)))[metric]
        assert cost <= course.limits[0][0].max
        seen = seen[-len(walk) :] if len(walk) else seen
        states, actions = walk.replayed(found, course)
        assert states.shape == (len(walk), walk.features + 1)
        assert np.array(seen, dtype=np.float32).reshape(states.shape) == pytest.approx(states)
        assert ((actions >= 0) & (actions <= 1)).all()

    @pytest.mark.parametrize("everywhere", [0.1, 0.5, 0.97])
    def test_a_plan_that_is_the_same_everywhere_comes_to_the_same_everywhere(self, everywhere):
        """Not to everything kept in the first layers and nothing in the last."""
        walk = Walk(PROBLEM.space, BatchCosts(PROBLEM.space))
        for share in (0.2, 0.4, 0.6, 0.8):
            found = walk.design(
                lambda states: np.full(len(states), everywhere, dtype=np.float32),
                lambda step, mean: mean,
                course_of(PROBLEM.space, share=share),
            )
            assert np.ptp(found[:-2]) <= 2  # the last take what rounding left
            reached = PROBLEM.values(PROBLEM.space.design_at(found))["macs"]
            assert 0 <= (1 / 8 + 7 / 8 * share) - reached < 0.06

    def test_without_limits_an_action_is_what_is_kept(self):
        walk = Walk(PROBLEM.space, BatchCosts(PROBLEM.space))
        wanted = np.random.default_rng(0).random(12)
        found = walk.design(even, lambda step, mean: float(wanted[step]), course_of(PROBLEM.space))
        assert 1 - np.array(found) / 7 == pytest.approx(wanted, abs=0.5 / 7 + 1e-9)

    def test_reduced_grows_and_rest_shrinks_to_nothing(self):
        walk = Walk(PROBLEM.space, BatchCosts(PROBLEM.space))
        states, actions = walk.replayed((7,) * 12, course_of(PROBLEM.space))
        reduced, rest, before = states[:, -4], states[:, -3], states[:, -2]
        assert (reduced[0], rest[0]) == pytest.approx((0, 1))
        assert reduced[1:] == pytest.approx(np.cumsum(PROBLEM.saving)[:-1], abs=1e-6)
        assert reduced + rest == pytest.approx(np.ones(12), abs=1e-6)
        assert before.tolist() == [1, *actions[:-1]]

    @given(st.floats(0.03, 0.97), st.floats(-2, 2))
    def test_shifts_are_undone_by_their_opposite(self, action, shift):
        there = shifted(action, shift)
        if 0.02 < there < 0.98:
            assert shifted(there, -shift) == pytest.approx(action)

    def test_the_range_of_a_metric_is_what_all_designs_take(self):
        for seed in range(25):
            space = small_space(np.random.default_rng(seed))
            if not 1 < space.size() <= 20_000:
                continue
            levels = [len(one.choices) for one in space.decisions]
            rows = np.stack(np.meshgrid(*map(np.arange, levels), indexing="ij"), -1).reshape(-1, len(levels))
            costs = BatchCosts(space)
            for metric in ("macs", "size_bytes"):
                found, told = range_of(costs, levels, metric), costs(rows, [metric])[metric]
                assert (found.least, found.most) == (told.min(), told.max())


class TestTargets:
    def targets(self, spec, problem=PROBLEM):
        foreseen = ForeseenLimits(problem.space, spec)
        levels = [len(one.choices) for one in problem.space.decisions]
        return CostTargets(spec, foreseen, lambda metric: range_of(foreseen.costs, levels, metric))

    def test_any_trials_in_a_row_are_spread_evenly(self):
        targets = self.targets(contract_spec(seed=5))
        for start in (0, 3, 100):
            shares = np.sort([targets.share_at(number) for number in range(start, start + 20)])
            assert np.diff(shares).max() < 0.11  # twice the even distance
            assert shares[0] < 0.11 < 0.89 < shares[-1]

    def test_they_stay_below_the_limit(self):
        spec = contract_spec()
        turn = self.targets(spec).ranges[0]
        most = turn.least + 0.3 * (turn.most - turn.least)
        limited = self.targets(spec.model_copy(update={"limits": (LimitSpec(metric="macs", max=most),)}))
        shares = [limited.share_at(number) for number in range(50)]
        assert 0.25 < max(shares) <= 0.3
        assert limited.limit_of(turn, 0.3).max <= most * (1 + 1e-12)

    def test_several_costs_take_turns(self):
        objectives = [
            {"metric": "accuracy", "direction": "maximize"},
            {"metric": "macs", "direction": "minimize"},
            {"metric": "size_bytes", "direction": "minimize"},
        ]
        targets = self.targets(with_objectives(objectives))
        assert [targets.range_at(number).metric for number in range(4)] == ["macs", "size_bytes"] * 2
        assert list(targets.features(targets.ranges[1], 0.25)) == [1.0, 0.25]

    def test_macs_stand_in_for_what_is_measured(self):
        latency = {"metric": "latency_s", "direction": "minimize", "device": "phone"}
        targets = self.targets(with_objectives([{"metric": "accuracy", "direction": "maximize"}, latency]))
        assert [one.metric for one in targets.ranges] == ["macs"]

    def test_without_a_cost_there_is_none(self):
        assert len(self.targets(with_objectives([{"metric": "accuracy", "direction": "maximize"}]))) == 0


def with_objectives(objectives):
    spec = contract_spec().model_dump()
    return SearchSpec.model_validate({**spec, "objectives": objectives})


class TestRewards:
    def test_what_the_target_says_by_itself_is_taken_out(self):
        generator = np.random.default_rng(0)
        targets = generator.random(80)
        better = generator.standard_normal(80)
        outcomes = np.stack([3 * targets - targets**2 + 0.1 * better, np.zeros(80), targets], axis=1)
        assert np.corrcoef(rewards_of(outcomes), better)[0, 1] > 0.95
        assert abs(np.corrcoef(rewards_of(outcomes), targets)[0, 1]) < 0.05

    def test_missing_a_limit_is_worse_than_anything_that_keeps_it_and_more_so_the_further(self):
        outcomes = np.array([[1.0, 0.0], [-50.0, 0.0], [np.nan, 0.1], [np.nan, 1.0]])
        rewards = rewards_of(outcomes)
        assert rewards[0] > rewards[1] > rewards[2] > rewards[3]

    def test_scale_and_offset_of_a_score_do_not_matter(self):
        outcomes = np.random.default_rng(0).random((30, 3)) * [1.0, 0.0, 1.0]
        other = outcomes * [1000.0, 1.0, 1.0] - [5e4, 0.0, 0.0]
        assert rewards_of(other) == pytest.approx(rewards_of(outcomes), abs=0.002)

    @pytest.mark.parametrize("count", [1, 2, 5])
    def test_few_or_equal_episodes_are_no_trouble(self, count):
        assert np.isfinite(rewards_of(np.ones((count, 3)) * [0.5, 0.0, 0.5])).all()


SMALL = network_problem([5] * 5)


def agent_sampler(space=SMALL.space, **spec):
    return make_sampler(contract_spec(**{"name": "ddpg", "ddpg": AGENT, "trials": 20, **spec}), space)


HISTORY = play(agent_sampler(), SMALL, 45, history=told_baseline(SMALL), batch=2, finish=mixed)


class TestSampler:
    @settings(max_examples=15, deadline=None)
    @given(st.data())
    def test_a_state_is_equal_to_the_history_that_led_to_it(self, data):
        """Of up to 50 trials, saved wherever, told on in whatever pieces."""
        count = data.draw(st.integers(1, len(HISTORY)))
        saved_at = data.draw(st.integers(0, count))
        middle = data.draw(st.integers(saved_at, count))
        lived, first, second = agent_sampler(), agent_sampler(), agent_sampler()
        lived.tell(HISTORY[:count])
        first.tell(HISTORY[:saved_at])
        second.restore(first.state())
        second.tell(HISTORY[saved_at:middle])
        second.tell(HISTORY[middle:count])
        assert second.ask(2, count, []) == lived.ask(2, count, [])
        one, other = lived.state(), second.state()
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])

    def test_a_state_of_another_space_or_agent_is_refused(self):
        sampler = agent_sampler()
        sampler.tell(HISTORY[:30])
        state = sampler.state()
        with pytest.raises(ValueError, match="another"):
            agent_sampler(network_problem([5] * 4).space).restore(state)
        with pytest.raises(ValueError, match="another"):
            agent_sampler(ddpg={**AGENT, "hidden": 17}).restore(state)
        with pytest.raises(ValueError, match="no state"):
            agent_sampler().restore({name: one for name, one in state.items() if name != "replay.actions"})

    def test_designs_come_out_at_their_targets(self):
        sampler, gaps = agent_sampler(PROBLEM.space, ddpg={**AGENT, "warm_up_trials": 4}), []
        sampler.tell(told_baseline(PROBLEM))
        for number in range(100, 120):
            (proposal,) = sampler.ask(1, number, [])
            wanted = 1 / 8 + 7 / 8 * proposal.memo["target"]
            gaps.append(wanted - PROBLEM.values(proposal.design)["macs"])
        assert np.median(np.abs(gaps)) < 0.03

    def test_the_warm_up_is_random_and_then_noise_goes_down(self):
        def walks(told, **agent):
            sampler = agent_sampler(ddpg={**AGENT, "warm_up_trials": 10, **agent})
            sampler.tell(HISTORY[:told])
            return {sampler._walked(7, np.random.default_rng(seed)) for seed in range(10)}

        assert len(walks(5, noise=0.0)) > 5
        assert len(walks(40, noise=0.5, noise_decay=1.0)) > 5
        assert len(walks(40, noise=0.5, noise_decay=0.5)) == 1  # of 2^-27 by then

    def test_foreign_memos_count_as_none(self):
        design = SMALL.space.uniform[3]
        states = []
        for memo in ({}, {"target": "much"}, {"target": 7.0}, {"target": True}, {"other": 1}):
            sampler = agent_sampler()
            sampler.tell([ToldTrial(0, design, TrialState.SUCCEEDED, {"accuracy": 0.5, "macs": 0.5}, {}, memo, False)])
            states.append(sampler.state()["replay.states"])
        assert all(np.array_equal(states[0], other) for other in states[1:])

    def test_stopped_trials_are_learned_from_as_what_they_were_expected_to_come_to(self):
        design, values = SMALL.space.uniform[3], {"accuracy": 0.5, "macs": 0.5}
        remembered = []
        for state in (TrialState.SUCCEEDED, TrialState.STOPPED, TrialState.FAILED):
            sampler = agent_sampler()
            sampler.tell([ToldTrial(0, design, state, values, {}, {}, False)])
            remembered.append(sampler._replay.outcomes)
        np.testing.assert_array_equal(remembered[1], remembered[0])
        assert len(remembered[0]) == 1
        assert len(remembered[2]) == 0

    def test_without_a_score_it_goes_on_at_random(self):
        spec = with_objectives([{"metric": "macs", "direction": "minimize"}])
        spec = spec.model_copy(update={"sampler": spec.sampler.model_copy(update={"name": "ddpg"})})
        told = play(make_sampler(spec, PROBLEM.space), PROBLEM, 10)
        assert len(told) == 10

    def test_settings_are_refused_for_other_samplers_and_out_of_range(self):
        spec = contract_spec().model_dump(mode="json")
        for sampler in ({"name": "tpe", "ddpg": {}}, {"name": "ddpg", "ddpg": {"discount": 1.5}}):
            with pytest.raises(SpecError):
                parse_spec({**spec, "sampler": sampler})
        assert parse_spec({**spec, "sampler": {"name": "ddpg", "ddpg": {"discount": 0.5}}}).sampler.ddpg.discount == 0.5
