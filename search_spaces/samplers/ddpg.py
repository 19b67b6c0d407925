"""An agent that walks the layers, learning by deep deterministic policy gradients, as AMC and HAQ search.

AMC: He et al., ECCV 2018, arXiv 1802.03494. HAQ: Wang et al., CVPR 2019, arXiv 1811.08886.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from functools import cached_property
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from search_spaces.batch_shapes import Integers
from search_spaces.objectives import Metric, TrialState
from search_spaces.quality import quality
from search_spaces.samplers.actor_critic import ActorCritic
from search_spaces.samplers.base import Stored, ToldTrial, prefixed, without_prefix
from search_spaces.samplers.cost_targets import CostTargets
from search_spaces.samplers.indexed import APART, IndexedSampler
from search_spaces.samplers.perceptron import Floats
from search_spaces.samplers.replay import Replay
from search_spaces.samplers.walk import Course, Range, Walk, range_of
from search_spaces.space import Indices, Space
from search_spaces.spec import DdpgSpec, LimitSpec, SearchSpec

WARM_UP_SHARE, MOST_WARM_UP = 0.25, 100
"""AMC: 100 episodes at random of 400; a budget of fewer has as large a share of them."""
_SCALE = 0.1
_WORST = 3.0
"""Deviations, that a reward is from the mean at most; what missed a limit is worse."""
_RIDGE = 1e-3
_LEAST_SPREAD = 0.05
"""Around the parabola, as a share of that of all episodes: what is less is taken for rounding."""
_DRAWN, _LEARNT = 1, 2
"""What chance is for: the streams of random numbers are apart."""


class DdpgSampler(IndexedSampler):
    """One agent decides everything, a step for each decision, in the order of the layers (`walk.Walk`).

    **Budgets.** While it walks an action is clipped so that what is left can still meet the limits, and the target;
    what is realised in the end is repaired as every sampler's designs are, and that is what is learned from.

    **A front.** An agent with one reward finds one design. So each trial has a target for its cost, which is part of
    the state and which the walk is clipped to (`cost_targets.CostTargets`): one agent learns where to save at any
    budget. The reward is the score alone, compared with what trials with such a target have come to.

    **Learning.** The first trials are walked at random. After each that is told from then on, the agent makes an update
    for each step of it, on transitions drawn from the last episodes, and the noise around its actions goes down. The
    walk of a design follows from the design, so that baseline trials are learned from too: they had no target, and
    are taken to have had what they came to. A trial that missed a limit counts as worse than any that did not.
    """

    def __init__(self, spec: SearchSpec, space: Space) -> None:
        super().__init__(spec, space)
        self._settings = spec.sampler.ddpg or DdpgSpec()
        self._warm_up = self._settings.warm_up_trials or _default_warm_up(spec.budget.trials)
        self._ranges: dict[str, Range] = {}
        self._agent: ActorCritic | None = None

    def _propose(self, number: int, taken: Set[Indices], running: Sequence[Indices]) -> Indices | None:
        generator = self._chance(_DRAWN, number)
        return self._unused(self._walked(number % APART, generator), taken, generator)

    def _memo(self, number: int, indices: Indices) -> dict[str, object]:
        return {"target": self._targets.share_at(number)} if len(self._targets) else {}

    def _learn(self, trial: ToldTrial, indices: Indices) -> None:
        outcome = self._outcome(trial)
        if not self._is_learnt(trial) or not len(self._walk) or outcome is None:
            return
        course = self._course(trial.number, self._target_of(trial, indices))
        states, actions = self._walk.replayed(indices, course)
        self._replay.add(states, actions, np.concatenate([outcome, course.targets]))
        if self._replay.count >= self._warm_up:
            self._update()

    # --- walking --------------------------------------------------------------------------------------------------

    def _walked(self, number: int, generator: np.random.Generator) -> Indices:
        uniforms, spread = generator.random(len(self._walk)), self._spread()
        is_warm = self._agent is not None

        def draw(step: int, mean: float) -> float:
            uniform = float(uniforms[step])
            return _truncated_normal(uniform, mean, spread) if is_warm else uniform

        share = self._targets.share_at(number) if len(self._targets) else 1.0
        return self._walk.design(self._policy, draw, self._course(number, share))

    def _policy(self, states: Floats) -> Floats:
        return np.full(len(states), 0.5, dtype=np.float32) if self._agent is None else self._agent.act(states)

    def _course(self, number: int, share: float) -> Course:
        by = self._turn(number)
        limits = list(self._limits)
        if len(self._targets):
            limits.append((self._targets.limit_of(by, share), by.cheapest))
        return Course(by, self._targets.features(by, share), tuple(limits))

    def _spread(self) -> float:
        """Of the noise, which goes down with each trial after the warm-up."""
        return self._settings.noise * self._settings.noise_decay ** max(self._replay.count - self._warm_up, 0)

    def _turn(self, number: int) -> Range:
        """The metric that a trial is walked by."""
        if len(self._targets):
            return self._targets.range_at(number)
        limited = [limit.metric for limit in self._foreseen.limits if limit.max is not None]
        return self._range(limited[0] if limited else Metric.MACS)

    # --- learning -------------------------------------------------------------------------------------------------

    def _outcome(self, trial: ToldTrial) -> NDArray[np.float64] | None:
        """Quality (nan where a limit was missed) and by how much limits were missed; None where nothing is learned."""
        missed = sum(min(amount, 1.0) for amount in trial.violations.values() if amount > 0)
        found = quality(trial.values, self._score)
        if trial.state is TrialState.INFEASIBLE:
            return np.array([math.nan, min(missed, 1.0)])
        if trial.state in (TrialState.SUCCEEDED, TrialState.STOPPED) and found is not None:
            return np.array([found, 0.0])
        return None

    def _target_of(self, trial: ToldTrial, indices: Indices) -> float:
        """The share that the trial was to come to, or of one that was not walked, what it came to."""
        share = trial.memo.get("target")
        if isinstance(share, float) and 0 <= share <= 1:
            return share
        by = self._turn(trial.number)
        return by.share(float(self._foreseen.costs([indices], [by.metric])[by.metric][0]))

    def _update(self) -> None:
        generator = self._chance(_LEARNT, self._replay.count)
        if self._agent is None:
            self._agent = ActorCritic(self._features, self._settings, generator)
        rewards = rewards_of(self._replay.outcomes)
        for _ in range(len(self._walk) * self._settings.updates_per_step):
            self._agent.update(self._replay.batch(rewards, self._settings.batch, generator))

    def _chance(self, purpose: int, number: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self._spec.sampler.seed, spawn_key=(purpose, number)))

    # --- snapshots ------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Stored] | None:
        if self._history is not None:  # a predictor has no state, and is told the whole history
            return None
        agent = {} if self._agent is None else prefixed("agent", self._agent.state())
        return {**self._known(), **prefixed("replay", self._replay.state()), **agent}

    def restore(self, state: Mapping[str, Stored]) -> None:
        try:
            self._know(state)
            self._replay.restore(without_prefix("replay", state))
            if agent := without_prefix("agent", state):
                self._agent = ActorCritic(self._features, self._settings, self._chance(_LEARNT, 0))
                self._agent.restore(agent)
        except (KeyError, TypeError) as error:
            raise ValueError(f"no state of this sampler: {error}") from None

    # --- made once ------------------------------------------------------------------------------------------------

    @cached_property
    def _walk(self) -> Walk:
        return Walk(self._space, self._foreseen.costs)

    @cached_property
    def _targets(self) -> CostTargets:
        return CostTargets(self._spec, self._foreseen, self._range)

    @cached_property
    def _limits(self) -> list[tuple[LimitSpec, Integers]]:
        """Each with the choices that keep it best."""
        ranges = [(limit, self._range(limit.metric)) for limit in self._foreseen.limits]
        return [(limit, found.cheapest if limit.max is not None else found.dearest) for limit, found in ranges]

    @property
    def _features(self) -> int:
        return self._walk.features + len(self._targets)

    @cached_property
    def _replay(self) -> Replay:
        return Replay(self._settings.replay_episodes, len(self._walk), self._features, columns=2 + len(self._targets))

    def _range(self, metric: str) -> Range:
        if metric not in self._ranges:
            self._ranges[metric] = range_of(self._foreseen.costs, self._levels, metric)
        return self._ranges[metric]


def _default_warm_up(budget_trials: int) -> int:
    return max(1, min(round(WARM_UP_SHARE * budget_trials), MOST_WARM_UP))


def _truncated_normal(uniform: float, mean: float, spread: float) -> float:
    """Of a normal around `mean` cut to [0, 1]: where its distribution reaches `uniform` of the way."""
    if spread <= 0:
        return mean
    normal = NormalDist(mean, spread)
    start, end = normal.cdf(0.0), normal.cdf(1.0)
    inside = start + uniform * (end - start)
    return min(max(normal.inv_cdf(inside), 0.0), 1.0) if 0 < inside < 1 else mean


def rewards_of(outcomes: NDArray[np.float64]) -> Floats:
    """What each episode's steps are rewarded with, (episodes,).

    HAQ's is a tenth of the difference between two accuracies. Here it is a tenth of how much better, in deviations, an
    episode was than those of such a target, by a parabola in each target that is fitted to what is remembered. That
    takes out what the target says by itself, which is most of it and nothing that an action could change.

    Args:
        outcomes: of each the quality, by how much it missed limits, and its targets; (episodes, columns).
    """
    quality, missed, targets = outcomes[:, 0], outcomes[:, 1], outcomes[:, 2:]
    met = np.isfinite(quality)
    terms = np.concatenate([np.ones((len(targets), 1)), targets, targets**2], axis=1)
    rewards = -(_WORST + missed)
    if met.any():
        scaled = (quality[met] - quality[met].mean()) / (quality[met].std() or 1.0)
        products = terms[met].T @ terms[met] + _RIDGE * np.eye(terms.shape[1])
        above = scaled - terms[met] @ np.linalg.solve(products, terms[met].T @ scaled)
        rewards[met] = np.clip(above / max(above.std(), _LEAST_SPREAD), -_WORST, _WORST)
    return (_SCALE * rewards).astype(np.float32)
