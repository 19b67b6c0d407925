"""Deep deterministic policy gradients (Lillicrap et al. 2016), with what AMC (He et al. 2018) made of them.

It must not know what states and actions mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from search_spaces.samplers.base import Stored
from search_spaces.samplers.perceptron import Adam, Floats, Perceptron
from search_spaces.spec import DdpgSpec


@dataclass(frozen=True, slots=True)
class Batch:
    """Transitions.

    Attributes:
        states, next_states: (rows, features); of the last step of an episode the latter mean nothing.
        actions, rewards: (rows,); rewards are those of the whole episode, at each of its steps.
        is_last: (rows,). The last step has no successor: papers' code appends a made-up one, of reward 0, after it.
    """

    states: Floats
    actions: Floats
    rewards: Floats
    next_states: Floats
    is_last: Floats


class ActorCritic:
    """An actor that gives an action in [0, 1] for a state, a critic that values both, and slow copies of them."""

    def __init__(self, features: int, settings: DdpgSpec, generator: np.random.Generator) -> None:
        self._settings = settings
        hidden = (settings.hidden, settings.hidden)
        self._actor = Perceptron.drawn((features, *hidden, 1), generator)
        self._critic = Perceptron.drawn((features + 1, *hidden, 1), generator, apart=1)
        self._slow_actor = Perceptron(self._actor.sizes, self._actor.parameters.copy())
        self._slow_critic = Perceptron(self._critic.sizes, self._critic.parameters.copy())
        self._actor_adam = Adam(settings.actor_learning_rate, len(self._actor.parameters))
        self._critic_adam = Adam(settings.critic_learning_rate, len(self._critic.parameters))
        self._baseline: float | None = None

    def act(self, states: Floats) -> Floats:
        """The actor's actions, (rows,), for states, (rows, features)."""
        return _sigmoid(self._actor(states))[:, 0]

    def update(self, batch: Batch) -> None:
        """One step of the critic, one of the actor, and their slow copies after them."""
        self._move_critic(batch)
        self._move_actor(batch.states)
        for slow, fast in ((self._slow_actor, self._actor), (self._slow_critic, self._critic)):
            slow.parameters[:] += self._settings.soft_update * (fast.parameters - slow.parameters)

    def _move_critic(self, batch: Batch) -> None:
        """Towards (R - b) + discount Q'(s', mu'(s')), b the moving mean of rewards (AMC, section 3)."""
        mean, momentum = float(batch.rewards.mean()), self._settings.baseline_momentum
        self._baseline = mean if self._baseline is None else momentum * self._baseline + (1 - momentum) * mean
        next_actions = _sigmoid(self._slow_actor(batch.next_states))
        later = self._slow_critic(np.concatenate([batch.next_states, next_actions], axis=1))[:, 0]
        wanted = batch.rewards - self._baseline + self._settings.discount * (1 - batch.is_last) * later
        trace = self._critic.trace(np.concatenate([batch.states, batch.actions[:, None]], axis=1))
        outer = (2 / len(wanted)) * (trace[-1] - wanted[:, None])
        self._critic_adam.step(self._critic.parameters, self._critic.gradient(trace, outer.astype(np.float32)))

    def _move_actor(self, states: Floats) -> None:
        """Up the critic's slope at the actor's own actions."""
        trace = self._actor.trace(states)
        actions = _sigmoid(trace[-1])
        valued = self._critic.trace(np.concatenate([states, actions], axis=1))
        downhill = np.full((len(states), 1), -1 / len(states), dtype=np.float32)
        slope = self._critic.input_gradient(valued, downhill)[:, -1:]
        self._actor_adam.step(self._actor.parameters, self._actor.gradient(trace, slope * actions * (1 - actions)))

    def state(self) -> dict[str, Stored]:
        return {**self._arrays(), "steps": self._actor_adam.steps, "baseline": self._baseline}

    def restore(self, state: Mapping[str, Stored]) -> None:
        """Raises `ValueError` where the state is of another agent."""
        for name, array in self._arrays().items():
            found = state[name]
            if not isinstance(found, np.ndarray) or found.shape != array.shape or found.dtype != array.dtype:
                raise ValueError(f"{name} is of another agent")
            array[:] = found
        self._actor_adam.steps = self._critic_adam.steps = int(state["steps"])  # type: ignore[arg-type]
        baseline = state["baseline"]
        self._baseline = None if baseline is None else float(baseline)

    def _arrays(self) -> dict[str, Floats]:
        return {
            "actor": self._actor.parameters,
            "critic": self._critic.parameters,
            "slow_actor": self._slow_actor.parameters,
            "slow_critic": self._slow_critic.parameters,
            "actor_first": self._actor_adam.first,
            "actor_second": self._actor_adam.second,
            "critic_first": self._critic_adam.first,
            "critic_second": self._critic_adam.second,
        }


def _sigmoid(values: Floats) -> Floats:
    return (1 / (1 + np.exp(-np.clip(values, -30, 30)))).astype(np.float32)
