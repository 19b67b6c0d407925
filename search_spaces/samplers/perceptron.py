"""A multilayer perceptron on numpy, with Adam: enough for an agent, and nothing to import.

All parameters of one network lie in one array, so that a step of Adam or of a soft update is a few passes over it.
It must not know what it learns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

FIRST_DECAY, SECOND_DECAY, EPSILON = 0.9, 0.999, 1e-8
"""Adam's own (Kingma and Ba 2015)."""


@dataclass(frozen=True, eq=False)
class Perceptron:
    """Linear layers with ReLUs between them; the last one's outputs are as they are.

    Attributes:
        sizes: inputs, hidden units, outputs.
        parameters: of each layer a matrix (inputs, outputs) and then its biases, flat.
    """

    sizes: tuple[int, ...]
    parameters: Floats

    @classmethod
    def drawn(cls, sizes: Sequence[int], generator: np.random.Generator, apart: int = 0) -> Perceptron:
        """Uniform in +-1/sqrt(inputs) of each layer.

        Args:
            apart: the last inputs, that count as a first layer of their own: the critic's actions would be lost among
                the features otherwise.
        """
        network = cls(tuple(sizes), np.empty(_count(sizes), dtype=np.float32))
        for number, (weights, biases) in enumerate(network.layers(network.parameters)):
            reach = len(weights) ** -0.5
            weights[:] = generator.uniform(-reach, reach, weights.shape)
            biases[:] = generator.uniform(-reach, reach, biases.shape)
            if number == 0 and apart:
                weights[-apart:] = generator.uniform(-(apart**-0.5), apart**-0.5, weights[-apart:].shape)
        return network

    def layers(self, flat: Floats) -> list[tuple[Floats, Floats]]:
        """Views of matrices and biases in any array as long as the parameters."""
        views, start = [], 0
        for inputs, outputs in pairwise(self.sizes):
            weights = flat[start : start + inputs * outputs].reshape(inputs, outputs)
            start += inputs * outputs
            views.append((weights, flat[start : start + outputs]))
            start += outputs
        return views

    def __call__(self, inputs: Floats) -> Floats:
        """(rows, inputs) to (rows, outputs)."""
        return self.trace(inputs)[-1]

    def trace(self, inputs: Floats) -> list[Floats]:
        """What goes into each layer, and the outputs: what `backward` needs."""
        values, layers = [inputs], self.layers(self.parameters)
        for number, (weights, biases) in enumerate(layers):
            value = values[-1] @ weights
            value += biases
            values.append(np.maximum(value, 0, out=value) if number + 1 < len(layers) else value)
        return values

    def gradient(self, trace: Sequence[Floats], outer: Floats) -> Floats:
        """Of the parameters, flat, from `outer`, that of the outputs (rows, outputs)."""
        found = np.empty_like(self.parameters)
        views = self.layers(found)
        for number, (weights, _) in reversed(list(enumerate(self.layers(self.parameters)))):
            np.matmul(trace[number].T, outer, out=views[number][0])
            outer.sum(axis=0, out=views[number][1])
            if number:
                outer = (outer @ weights.T) * (trace[number] > 0)
        return found

    def input_gradient(self, trace: Sequence[Floats], outer: Floats) -> Floats:
        """Of the inputs, (rows, inputs)."""
        for number, (weights, _) in reversed(list(enumerate(self.layers(self.parameters)))):
            outer = outer @ weights.T
            if number:
                outer *= trace[number] > 0
        return outer


def _count(sizes: Sequence[int]) -> int:
    return sum((inputs + 1) * outputs for inputs, outputs in pairwise(sizes))


class Adam:
    """Moves parameters against their gradient (Kingma and Ba 2015)."""

    def __init__(self, learning_rate: float, size: int) -> None:
        self._learning_rate = learning_rate
        self.first = np.zeros(size, dtype=np.float32)
        self.second = np.zeros(size, dtype=np.float32)
        self.steps = 0

    def step(self, parameters: Floats, gradient: Floats) -> None:
        """Change `parameters` in place."""
        self.steps += 1
        self.first += (1 - FIRST_DECAY) * (gradient - self.first)
        self.second += (1 - SECOND_DECAY) * (gradient * gradient - self.second)
        rate = self._learning_rate / (1 - FIRST_DECAY**self.steps)
        spread = np.sqrt(self.second / (1 - SECOND_DECAY**self.steps))
        spread += EPSILON
        parameters -= rate * self.first / spread
