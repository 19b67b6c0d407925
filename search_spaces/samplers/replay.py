"""What an agent remembers: whole episodes, of which it draws single transitions. It must not know what they mean."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from search_spaces.samplers.actor_critic import Batch
from search_spaces.samplers.base import Stored
from search_spaces.samplers.perceptron import Floats


class Replay:
    """The last `capacity` episodes, all of as many steps, each with what its reward is told from.

    Attributes:
        count: episodes ever added.
        outcomes: (episodes that are kept, columns).
    """

    def __init__(self, capacity: int, steps: int, features: int, columns: int) -> None:
        self._states = np.zeros((capacity, steps, features), dtype=np.float32)
        self._actions = np.zeros((capacity, steps), dtype=np.float32)
        self._outcomes = np.zeros((capacity, columns))
        self.count = 0

    def __len__(self) -> int:
        return min(self.count, len(self._actions))

    @property
    def outcomes(self) -> NDArray[np.float64]:
        return self._outcomes[: len(self)]

    def add(self, states: Floats, actions: Floats, outcome: NDArray[np.float64]) -> None:
        """Args: states (steps, features), actions (steps,), outcome (columns,)."""
        place = self.count % len(self._actions)
        self._states[place], self._actions[place], self._outcomes[place] = states, actions, outcome
        self.count += 1

    def batch(self, rewards: Floats, size: int, generator: np.random.Generator) -> Batch:
        """Transitions drawn alike from all steps of all episodes.

        Args:
            rewards: of each episode that is kept, (episodes,); every step of it gets it (AMC).
        """
        steps = self._actions.shape[1]
        episodes, places = generator.integers(len(self), size=size), generator.integers(steps, size=size)
        following = np.minimum(places + 1, steps - 1)
        return Batch(
            states=self._states[episodes, places],
            actions=self._actions[episodes, places],
            rewards=rewards[episodes],
            next_states=self._states[episodes, following],
            is_last=(places == steps - 1).astype(np.float32),
        )

    def state(self) -> dict[str, Stored]:
        kept = len(self)
        return {
            "count": self.count,
            "states": self._states[:kept].copy(),
            "actions": self._actions[:kept].copy(),
            "outcomes": self._outcomes[:kept].copy(),
        }

    def restore(self, state: Mapping[str, Stored]) -> None:
        """Raises `ValueError` where the state is of another replay."""
        self.count = int(state["count"])  # type: ignore[arg-type]
        for name, array in (("states", self._states), ("actions", self._actions), ("outcomes", self._outcomes)):
            found = state[name]
            if not isinstance(found, np.ndarray) or found.shape != (len(self), *array.shape[1:]):
                raise ValueError(f"{name} is of another replay")
            array[: len(self)] = found
