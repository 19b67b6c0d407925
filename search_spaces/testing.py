"""Tests that ship with the contracts, and known-answer problems: for ours and for anybody's implementation.

Subclass a contract class in a test module and supply its fixture; pytest does the rest. Needs pytest, so that
nothing outside of tests imports this.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import moocore
import numpy as np
import pytest

from search_spaces.design import Design, Kind, decision_name
from search_spaces.network import InputContract, Network, Node, Op
from search_spaces.objectives import Metric, TrialState
from search_spaces.samplers.base import Proposal, Sampler, ToldTrial
from search_spaces.space import Decision, Space
from search_spaces.spec import SearchSpec

MakeSampler = Callable[[SearchSpec, Space], Sampler]


# Spaces and specs


def chain_space(choice_counts: Sequence[int]) -> Space:
    """A chain of convolutions: layer i keeps one of `choice_counts[i]` channel counts, the logits stay.

    Its uniform sweep takes the same choice everywhere, as far as every layer has it.
    """
    nodes = [Node(name="image", op=Op.INPUT)]
    for index, channels in enumerate(choice_counts):
        conv = Node(name=f"layer{index:02d}", op=Op.CONV, inputs=(nodes[-1].name,), channels=channels, kernel=(1, 1))
        nodes.append(conv)
    layers = [node.name for node in nodes[1:]]
    nodes.append(Node(name="logits", op=Op.CONV, inputs=(nodes[-1].name,), channels=10, kernel=(1, 1)))
    network = Network("chain", InputContract((1, 8, 8), (0.0,), (1.0,)), tuple(nodes), "logits")
    return _channel_space(network, layers, choice_counts)


def _channel_space(network: Network, layers: Sequence[str], choice_counts: Sequence[int]) -> Space:
    """Each layer keeps any number of its channels but none."""
    decisions = tuple(
        Decision(decision_name(Kind.CHANNELS, name), Kind.CHANNELS, name, tuple(range(count, 0, -1)))
        for name, count in zip(layers, choice_counts, strict=True)
    )
    uniform = tuple(
        Design.of({decision.name: decision.choices[index] for decision in decisions})
        for index in range(min(choice_counts))
    )
    return Space(network, decisions, uniform)


def contract_spec(seed: int = 7, trials: int = 40, **sampler: Any) -> SearchSpec:
    """A spec with two objectives, accuracy and MACs, whose network and space part are beside the point."""
    return SearchSpec.model_validate(
        {
            "name": "contract",
            "network": {"family": "mobilenet_v1", "input": [1, 28, 28]},
            "dataset": {"name": "digits"},
            "space": {},
            "objectives": [
                {"metric": "accuracy", "direction": "maximize"},
                {"metric": "macs", "direction": "minimize"},
            ],
            "sampler": {"seed": seed, **sampler},
            "budget": {"trials": trials},
        }
    )


# A known answer


@dataclass(frozen=True)
class PruningProblem:
    """Pruning as arithmetic: removing a share x of a layer costs accuracy `damage * x^2` and saves `saving * x` MACs.

    Damage and saving of all layers sum up to 1. A design that saves B loses at least B^2 / K of accuracy, with
    K = sum(saving^2 / damage) >= 1 (Cauchy-Schwarz), where the uniform sweep loses B^2. Against the reference point
    (accuracy 0, MACs 1) that bounds the hypervolume of any set of designs by 1 - 1 / (3 K), and that of
    the uniform sweep by 2 / 3.
    """

    space: Space
    damage: np.ndarray
    saving: np.ndarray

    @property
    def hypervolume_bound(self) -> float:
        return 1 - 1 / (3 * float((self.saving**2 / self.damage).sum()))

    def values(self, design: Design) -> dict[str, float]:
        levels = [len(decision.choices) for decision in self.space.decisions]
        removed = np.array(self.space.indices_of(design)) / np.array(levels)
        return {
            Metric.ACCURACY: 1 - float((self.damage * removed**2).sum()),
            Metric.MACS: 1 - float((self.saving * removed).sum()),
        }

    def hypervolume(self, trials: Iterable[ToldTrial]) -> float:
        points = [[1 - t.values[Metric.ACCURACY], t.values[Metric.MACS]] for t in trials]
        return float(moocore.hypervolume(np.array(points), ref=[1.0, 1.0]))


def pruning_problem(choice_counts: Sequence[int]) -> PruningProblem:
    """Damage and saving spread over a factor of 30 from layer to layer, in unrelated orders that never change."""
    generator = np.random.default_rng(0)
    spread = np.geomspace(1.0, 30.0, len(choice_counts))
    damage, saving = generator.permutation(spread), generator.permutation(spread)
    return PruningProblem(chain_space(choice_counts), damage / damage.sum(), saving / saving.sum())


def network_problem(choice_counts: Sequence[int]) -> PruningProblem:
    """As `pruning_problem`, but its MACs are those of its network, as a share: a sampler may look at them beforehand.

    Layers that are decided take turns with layers of fixed widths, so that MACs are a sum over the decisions: a layer
    of n channels between widths a and b has n (a + b) per place. Widths and damage are spread widely.
    """
    generator = np.random.default_rng(0)
    count = len(choice_counts)
    widths = [1, *map(round, generator.permutation(np.geomspace(2.0, 60.0, count - 1))), 10]
    damage = generator.permutation(np.geomspace(1.0, 30.0, count))
    nodes = [Node(name="image", op=Op.INPUT)]
    for number, channels in enumerate(choice_counts):
        for name, width in ((f"layer{number:02d}", channels), (f"between{number:02d}", widths[number + 1])):
            nodes.append(Node(name=name, op=Op.CONV, inputs=(nodes[-1].name,), channels=width, kernel=(1, 1)))
    network = Network("alternating", InputContract((1, 8, 8), (0.0,), (1.0,)), tuple(nodes), nodes[-1].name)
    layers = [node.name for node in nodes[1::2]]
    neighbours = np.array(widths[:-1]) + np.array(widths[1:])
    saving = np.array(choice_counts) * neighbours
    return PruningProblem(_channel_space(network, layers, choice_counts), damage / damage.sum(), saving / saving.sum())


# Playing a search


def succeeded(number: int, proposal: Proposal, problem: PruningProblem, baseline: bool = False) -> ToldTrial:
    """The trial as it comes back from the database: its memo has been through JSON."""
    memo = json.loads(json.dumps(dict(proposal.memo)))
    values = problem.values(proposal.design)
    return ToldTrial(number, proposal.design, TrialState.SUCCEEDED, values, {}, memo, baseline)


def infeasible(number: int, proposal: Proposal, problem: PruningProblem) -> ToldTrial:
    """Ended before the accuracy was known, since it takes too many MACs."""
    macs = problem.values(proposal.design)[Metric.MACS]
    memo = dict(proposal.memo)
    return ToldTrial(
        number, proposal.design, TrialState.INFEASIBLE, {Metric.MACS: macs}, {"macs.max": macs}, memo, False
    )


def failed(number: int, proposal: Proposal, problem: PruningProblem) -> ToldTrial:
    return ToldTrial(number, proposal.design, TrialState.FAILED, {}, {}, dict(proposal.memo), False)


def stopped(number: int, proposal: Proposal, problem: PruningProblem) -> ToldTrial:
    """Ended at the first of two steps, and expected to come to a little less than it would."""
    values = problem.values(proposal.design)
    values[Metric.ACCURACY] -= 0.05
    memo = dict(proposal.memo)
    return ToldTrial(number, proposal.design, TrialState.STOPPED, values, {}, memo, False, fidelity=0.5)


def mixed(number: int, proposal: Proposal, problem: PruningProblem) -> ToldTrial:
    """Every fifth trial fails, every third misses a limit, every seventh is stopped."""
    finish = failed if number % 5 == 4 else infeasible if number % 3 == 2 else stopped if number % 7 == 6 else succeeded
    return finish(number, proposal, problem)


def told_baseline(problem: PruningProblem) -> list[ToldTrial]:
    return [
        succeeded(number, Proposal(design, {}), problem, baseline=True)
        for number, design in enumerate(problem.space.uniform)
    ]


def play(
    sampler: Sampler,
    problem: PruningProblem,
    trials: int,
    *,
    history: Sequence[ToldTrial] = (),
    batch: int = 1,
    finish: Callable[[int, Proposal, PruningProblem], ToldTrial] = succeeded,
) -> list[ToldTrial]:
    """Run a search of up to `trials` trials, `batch` at a time, after `history`. Returns all that was told."""
    told = list(history)
    sampler.tell(told)
    while len(told) < len(history) + trials:
        wanted = min(batch, len(history) + trials - len(told))
        proposals = sampler.ask(wanted, len(told), [])
        if not proposals:
            break
        finished = [finish(len(told) + offset, proposal, problem) for offset, proposal in enumerate(proposals)]
        sampler.tell(finished)
        told += finished
    return told


class SamplerContract:
    """What `search_spaces.samplers.base.Sampler` promises.

    Supply a fixture `make`: a callable that takes (SearchSpec, Space) and returns a fresh sampler.
    """

    covers_space = True
    """Whether the sampler goes on until every design of the space has been tried."""

    trials = 40
    """How many are played in a roomy space; fewer for samplers that take long to ask."""

    roomy = pruning_problem([4] * 6)
    small = pruning_problem([2, 3, 2, 1])

    def test_designs_lie_in_the_space_and_none_comes_twice(self, make: MakeSampler) -> None:
        told = play(make(contract_spec(), self.roomy.space), self.roomy, self.trials, history=told_baseline(self.roomy))
        designs = [self.roomy.space.indices_of(trial.design) for trial in told]
        assert all(self.roomy.space.contains(trial.design) for trial in told)
        assert len(set(designs)) == len(designs)

    def test_baseline_is_not_proposed_again_even_if_not_learnt_from(self, make: MakeSampler) -> None:
        sampler = make(contract_spec(seed_uniform=False), self.small.space)
        told = play(sampler, self.small, 40, history=told_baseline(self.small))
        designs = [self.small.space.indices_of(trial.design) for trial in told]
        assert len(set(designs)) == len(designs)

    @pytest.mark.parametrize("batch", [1, 5])
    def test_exhausted_space_ends_the_search(self, make: MakeSampler, batch: int) -> None:
        sampler = make(contract_spec(), self.small.space)
        told = play(sampler, self.small, 100, batch=batch)
        expected = self.small.space.size() if self.covers_space else len(self.small.space.uniform)
        assert len({self.small.space.indices_of(trial.design) for trial in told}) == len(told) == expected
        assert sampler.ask(3, len(told), []) == []

    def test_same_seed_asks_the_same(self, make: MakeSampler) -> None:
        once, again = (play(make(contract_spec(), self.roomy.space), self.roomy, self.trials) for _ in range(2))
        assert once == again

    @pytest.mark.parametrize("batch_sizes", [[44], [1] * 44, [16, 20, 1], [3, 30, 4]])
    def test_restored_sampler_asks_what_the_lived_one_asks(self, make: MakeSampler, batch_sizes: list[int]) -> None:
        lived = make(contract_spec(), self.roomy.space)
        told = play(lived, self.roomy, self.trials, history=told_baseline(self.roomy), batch=3, finish=mixed)
        ends = np.cumsum(batch_sizes)
        restored = make(contract_spec(), self.roomy.space)
        for start, end in zip(chain([0], ends), ends, strict=False):
            restored.tell(told[start:end])
        restored.tell(told[ends[-1] :])
        assert restored.ask(3, len(told), []) == lived.ask(3, len(told), [])

    @pytest.mark.parametrize("count", [0, 1, 18, 37])
    def test_a_state_is_as_good_as_the_history_that_led_to_it(self, make: MakeSampler, count: int) -> None:
        lived, saved, fresh = (make(contract_spec(), self.roomy.space) for _ in range(3))
        if fresh.state() is None:  # it is told the history again, and takes nothing for a state
            with pytest.raises(ValueError, match="no state"):
                fresh.restore({})
            return
        told = play(lived, self.roomy, 33, history=told_baseline(self.roomy), batch=3, finish=mixed)
        saved.tell(told[:count])
        state = saved.state()
        assert state is not None
        fresh.restore(state)
        saved.tell(told[count:])  # what goes on must not change what was saved
        fresh.tell(told[count:])
        assert fresh.ask(3, len(told), []) == lived.ask(3, len(told), []) == saved.ask(3, len(told), [])

    def test_asking_changes_nothing(self, make: MakeSampler) -> None:
        told = play(make(contract_spec(), self.roomy.space), self.roomy, self.trials, finish=mixed)
        asked_often, asked_once = (make(contract_spec(), self.roomy.space) for _ in range(2))
        for trial in told:
            asked_often.tell([trial])
            asked_often.ask(2, trial.number + 1, [])
        asked_once.tell(told)
        first = asked_once.ask(2, len(told), [])
        assert asked_once.ask(2, len(told), []) == first == asked_often.ask(2, len(told), [])

    def test_asking_for_several_is_asking_one_by_one(self, make: MakeSampler) -> None:
        sampler = make(contract_spec(), self.roomy.space)
        told = play(sampler, self.roomy, self.trials // 2)
        together = sampler.ask(4, len(told), [])
        one_by_one: list[Proposal] = []
        for number in range(len(told), len(told) + len(together)):
            one_by_one += sampler.ask(1, number, [proposal.design for proposal in one_by_one])
        assert one_by_one == together

    def test_open_designs_are_left_alone_in_whatever_order_they_come(self, make: MakeSampler) -> None:
        sampler = make(contract_spec(), self.small.space)
        running = [proposal.design for proposal in sampler.ask(2, 0, [])]
        after = sampler.ask(100, 2, running)
        assert not {proposal.design for proposal in after} & set(running)
        assert sampler.ask(100, 2, running[::-1]) == after
        # Told nothing, the sampler is as it was: open designs are not learnt.
        assert [proposal.design for proposal in sampler.ask(2, 0, [])] == running

    def test_memos_survive_json(self, make: MakeSampler) -> None:
        sampler = make(contract_spec(), self.roomy.space)
        told = play(sampler, self.roomy, self.trials)
        memos = [dict(proposal.memo) for proposal in sampler.ask(3, len(told), [])]
        assert json.loads(json.dumps(memos, allow_nan=False)) == memos

    @pytest.mark.parametrize("finish", [failed, infeasible, stopped, mixed])
    def test_trials_that_did_not_succeed_break_nothing(
        self, make: MakeSampler, finish: Callable[[int, Proposal, PruningProblem], ToldTrial]
    ) -> None:
        told = play(make(contract_spec(), self.roomy.space), self.roomy, self.trials, finish=finish)
        assert len(told) == (self.trials if self.covers_space else len(self.roomy.space.uniform))

    def test_values_that_are_no_numbers_break_nothing(self, make: MakeSampler) -> None:
        def broken(number: int, proposal: Proposal, problem: PruningProblem) -> ToldTrial:
            values: dict[str, float] = {Metric.ACCURACY: float("nan"), Metric.MACS: float("inf")}
            return ToldTrial(number, proposal.design, TrialState.SUCCEEDED, values, {}, dict(proposal.memo), False)

        told = play(make(contract_spec(), self.roomy.space), self.roomy, 20, finish=broken)
        assert len(told) == (20 if self.covers_space else len(self.roomy.space.uniform))
