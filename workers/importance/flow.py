"""Importances of the gradient-flow framework (Lubana and Dick, ICLR 2021, arXiv 2009.11839).

Under gradient flow, d theta / dt = -g, the first derivative of the weights' squared norm is -2 theta.g, the second
2 (g.g + theta.Hg). What each filter adds to these says what its removal changes: to zeroth order the norm itself, to
first order the loss, to second order the gradient's norm.

Elements are scored and then summed over the filters of an atom, with g and H of the mean loss over `train`.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from search_spaces.network import Network
from workers.importance.base import Evidence, Importance
from workers.importance.filters import own_weights, sum_over_filters
from workers.importance.gradients import draw_balanced, draw_first, hessian_gradient, loss_gradient
from workers.weights import Weights


class _FirstOrder(Importance):
    """From theta and g.

    Attributes:
        temperature: what logits are divided by: as in training, where it is 1 here and 5 in the paper.
    """

    temperature = 1.0

    def atom_scores(self, network: Network, weights: Weights, evidence: Evidence) -> np.ndarray:
        sample = draw_first(evidence.train)
        gradient = loss_gradient(network, weights, sample, self.temperature, evidence.yield_to)
        values = {name: self._of_elements(own_weights(weights, name), slope) for name, slope in gradient.items()}
        return sum_over_filters(network, values)

    @abstractmethod
    def _of_elements(self, theta: np.ndarray, g: np.ndarray) -> np.ndarray:
        """The score of each element."""


class LossPreservation(_FirstOrder):
    """sum |theta g|: how much the loss changes at most, to first order, when elements go."""

    def _of_elements(self, theta: np.ndarray, g: np.ndarray) -> np.ndarray:
        return np.asarray(np.abs(theta * g))


class BiasedLossPreservation(_FirstOrder):
    """sum theta^2 |g|: the same, but small weights go rather than large ones. The paper's own."""

    def _of_elements(self, theta: np.ndarray, g: np.ndarray) -> np.ndarray:
        return np.asarray(theta**2 * np.abs(g))


class _SecondOrder(Importance):
    """From theta and Hg; the images are balanced by class.

    Attributes:
        temperature: what logits are divided by.
    """

    temperature: float

    def atom_scores(self, network: Network, weights: Weights, evidence: Evidence) -> np.ndarray:
        sample = draw_balanced(evidence.train)
        _, product = hessian_gradient(network, weights, sample, self.temperature, evidence.yield_to)
        values = {name: own_weights(weights, name) * slope for name, slope in product.items()}
        return self._of_atoms(sum_over_filters(network, values))

    @abstractmethod
    def _of_atoms(self, change: np.ndarray) -> np.ndarray:
        """The score of each atom from the sum of theta Hg."""


class GraSP(_SecondOrder):
    """sum theta Hg, signed: the lowest go, so that the gradient's norm grows (Wang et al., ICLR 2020)."""

    temperature = 200.0

    def _of_atoms(self, change: np.ndarray) -> np.ndarray:
        return change


class GradientNormPreservation(_SecondOrder):
    """|sum theta Hg|: what changes the gradient's norm least goes."""

    temperature = 1.0

    def _of_atoms(self, change: np.ndarray) -> np.ndarray:
        return np.asarray(np.abs(change))
