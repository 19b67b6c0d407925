"""Regression that knows how sure it is: a Gaussian process on designs (Rasmussen and Williams 2006, chapters 2 and 5).

Its covariance is that of a straight line in some features, for what adds up over decisions, and of a smooth function of
coordinates, for what does not. How much of each, how smooth and how noisy is what makes the data likeliest, on a grid.
It must not know trials or metrics.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

LINEAR_SHARES = (0.3, 0.7, 0.95)
REACHES = (0.5, 1.0, 2.0)
"""Of the smooth part, as a multiple of the root mean square distance between the data."""
NOISES = (0.002, 0.02, 0.1)
"""Variance of noise against that of the function."""


@dataclass(frozen=True)
class Inputs:
    """Designs as a process sees them.

    Attributes:
        features: (designs, features), what the linear part is linear in.
        coordinates: (designs, coordinates), between which the smooth part tells distances.
    """

    features: Numbers
    coordinates: Numbers

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, rows: slice | NDArray[np.intp]) -> Inputs:
        return Inputs(self.features[rows], self.coordinates[rows])

    def joined(self, other: Inputs) -> Inputs:
        return Inputs(
            np.concatenate([self.features, other.features]), np.concatenate([self.coordinates, other.coordinates])
        )


@dataclass(frozen=True)
class Hyperparameters:
    linear_share: float
    reach: float
    noise: float


class GaussianProcess:
    """Fitted to (inputs, targets), with given hyperparameters; targets of any scale."""

    def __init__(self, inputs: Inputs, targets: Numbers, chosen: Hyperparameters) -> None:
        self._inputs, self._chosen = inputs, chosen
        self._mean = float(targets.mean())
        self._centre = inputs.features.mean(axis=0)
        # One unit for all features: they are of one kind, and what hardly varies in the data must not count for more.
        self._spread = float(np.sqrt((inputs.features - self._centre).var(axis=0).sum())) + 1e-9
        self._distance2 = max(float(_distances2(inputs.coordinates, inputs.coordinates).mean()), 1e-9)
        covariance = self._covariance(inputs, inputs) + chosen.noise * np.eye(len(inputs))
        lower = np.linalg.cholesky(covariance + 1e-8 * np.eye(len(inputs)))
        self._inverse = np.linalg.inv(lower)
        whitened = self._inverse @ (targets - self._mean)
        self._weights = self._inverse.T @ whitened
        self._scale2 = max(float(whitened @ whitened) / len(inputs), 1e-12)
        self._log_determinant = 2 * float(np.log(np.diag(lower)).sum())

    @property
    def log_likelihood(self) -> float:
        """Of the targets, at the likeliest scale, up to a constant."""
        return -0.5 * (len(self._inputs) * float(np.log(self._scale2)) + self._log_determinant)

    def predict(self, inputs: Inputs) -> tuple[Numbers, Numbers]:
        """Mean and standard deviation of the function, without noise, both (designs,)."""
        across = self._covariance(inputs, self._inputs)
        explained = ((self._inverse @ across.T) ** 2).sum(axis=0)
        own = self._own_variance(inputs)
        deviation = np.sqrt(self._scale2 * np.maximum(own - explained, 1e-9))
        return self._mean + across @ self._weights, deviation

    def _covariance(self, left: Inputs, right: Inputs) -> Numbers:
        linear = self._standard(left) @ self._standard(right).T
        near = np.exp(-0.5 * _distances2(left.coordinates, right.coordinates) / self._reach2)
        share = self._chosen.linear_share
        covariance: Numbers = share * linear + (1 - share) * near
        return covariance

    def _own_variance(self, inputs: Inputs) -> Numbers:
        share = self._chosen.linear_share
        variance: Numbers = share * (self._standard(inputs) ** 2).sum(axis=1) + (1 - share)
        return variance

    def _standard(self, inputs: Inputs) -> Numbers:
        standard: Numbers = (inputs.features - self._centre) / self._spread
        return standard

    @property
    def _reach2(self) -> float:
        return self._chosen.reach**2 * self._distance2


def choose(inputs: Inputs, targets: Numbers) -> Hyperparameters:
    """Those of the grid that make the targets likeliest."""
    grid = [Hyperparameters(*values) for values in product(LINEAR_SHARES, REACHES, NOISES)]

    def likelihood(one: Hyperparameters) -> float:
        return GaussianProcess(inputs, targets, one).log_likelihood

    return max(grid, key=likelihood)


def _distances2(left: Numbers, right: Numbers) -> Numbers:
    """Squared Euclidean distances, (left, right)."""
    squares = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)[None]
    distances: Numbers = np.maximum(squares - 2 * left @ right.T, 0)
    return distances
