"""Fits a cost model to whole networks that were measured. What the model is, is said in `search_spaces.cost_models`.

All that has to be chosen (how smooth, how far from the physical guess, how noisy) is chosen by the error of leaving one
network out, which a linear model tells in closed form. Knows no database.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from scipy.optimize import nnls

from search_spaces.cost_models.additive import (
    NOMINAL,
    NUMBERS,
    AdditiveModel,
    Array,
    KindModel,
    numbers_of,
    similarity,
)
from search_spaces.cost_models.terms import Term

FEWEST = 12
"""Networks that a model is fitted to at least."""

MOST_POINTS = 40
_LENGTHS, _SCALES = (0.7, 1.5, 3.0), (0.1, 0.3, 0.6)
_CLOSE = 0.2
"""Doublings within which two places need no inducing point each."""
_JITTER = 1e-4
_FIRST_NOISE, _LEAST_NOISE = 0.015, 0.003
_PULL = 1e-3
"""How weakly rates are pulled to zero, where networks do not tell two of them apart."""


class TooFewError(ValueError):
    """There are not enough measurements to fit a model to."""


@dataclass(frozen=True)
class Sample:
    """A network that was measured.

    Attributes:
        terms: see `search_spaces.cost_models.terms`.
        cost: what was measured, positive.
    """

    terms: tuple[Term, ...]
    cost: float


@dataclass(frozen=True)
class Left:
    """What the model would have said of each sample without having seen it. All (samples,), relative to the cost."""

    errors: Array
    spreads: Array


def fit(samples: Sequence[Sample]) -> AdditiveModel:
    """Fit a model.

    Raises:
        TooFewError: fewer than `FEWEST` samples.
    """
    if len(samples) < FEWEST:
        raise TooFewError(f"a cost model needs {FEWEST} measured networks at least; there are {len(samples)}")
    noise = dict.fromkeys(NUMBERS, _FIRST_NOISE)
    rates = _fit_rates(samples)
    _, model = min(
        (_fit_scored(samples, rates, length, scale, noise) for length, scale in product(_LENGTHS, _SCALES)),
        key=lambda scored: scored[0],
    )
    noise = _noise_of(samples, leave_one_out(samples, model))
    _, model = _fit_scored(samples, rates, model.length, model.scale, noise)
    return replace(model, widen=_widening(samples, leave_one_out(samples, model)))


def leave_one_out(samples: Sequence[Sample], model: AdditiveModel) -> Left:
    """Errors and spreads of predicting each sample from all others, in closed form.

    For a linear model with hat value h, the error without a sample is its residual / (1 - h), and the variance of its
    prediction sigma^2 / (1 - h) (Rasmussen and Williams 2006, section 5.4.2, in weight space).
    """
    rows, residuals = _equations(samples, model)
    sigma = np.array([model.noise[numbers_of(sample.terms)] for sample in samples])
    hats = np.einsum("ij,jk,ik->i", rows, model.covariance, rows) / sigma**2
    kept = np.clip(1 - hats, 1e-6, None)
    return Left((residuals - rows @ model.weights) / kept, sigma / np.sqrt(kept))


def _fit_scored(
    samples: Sequence[Sample], rates: Mapping[str, Array], length: float, scale: float, noise: Mapping[str, float]
) -> tuple[float, AdditiveModel]:
    """The model with these choices, and its negative log predictive density of what was left out, per sample."""
    model = _fit_corrections(samples, _lay_out(samples, rates, length), length, scale, noise)
    left = leave_one_out(samples, model)
    return float(np.mean(np.log(left.spreads) + 0.5 * (left.errors / left.spreads) ** 2)), model


def _fit_rates(samples: Sequence[Sample]) -> dict[str, Array]:
    """The physical guess: non-negative least squares on relative errors."""
    widths = {term.kind: len(term.amounts) for sample in samples for term in sample.terms}
    starts = dict(zip(widths, np.cumsum([0, *widths.values()]), strict=False))
    amounts = np.zeros((len(samples), sum(widths.values())))
    for row, sample in zip(amounts, samples, strict=True):
        for term in sample.terms:
            row[starts[term.kind] : starts[term.kind] + widths[term.kind]] += term.amounts
    largest = np.maximum(amounts.max(axis=0), 1.0)
    relative = amounts / largest / np.array([[sample.cost] for sample in samples])
    pull = _PULL * relative.mean() * np.eye(relative.shape[1])
    wanted = np.concatenate([np.ones(len(samples)), np.zeros(len(pull))])
    found, _ = nnls(np.concatenate([relative, pull]), wanted, maxiter=30 * relative.shape[1])
    rates = found / largest
    return {kind: rates[start : start + widths[kind]] for kind, start in starts.items()}


def _lay_out(samples: Sequence[Sample], rates: Mapping[str, Array], length: float) -> dict[str, KindModel]:
    """The kinds with their inducing points and columns."""
    kinds: dict[str, KindModel] = {}
    start = 0
    for kind, own in rates.items():
        places = {term.coordinates for sample in samples for term in sample.terms if term.kind == kind}
        points = _spread_points(np.array(sorted(places)))
        covariance = similarity(points, points, length) + _JITTER * np.eye(len(points))
        kinds[kind] = KindModel(own, points, np.linalg.inv(np.linalg.cholesky(covariance)), start)
        start += 1 + len(points)
    return kinds


def _spread_points(places: Array) -> Array:
    """At most `MOST_POINTS` of the places, the farthest from those chosen so far first. None where all are one."""
    if len(places) == 1:
        return np.empty((0, places.shape[1]))
    chosen, apart = [0], np.linalg.norm(places - places[0], axis=1)
    while len(chosen) < MOST_POINTS and apart.max() > _CLOSE:
        chosen.append(int(apart.argmax()))
        apart = np.minimum(apart, np.linalg.norm(places - places[chosen[-1]], axis=1))
    return places[chosen]


def _fit_corrections(
    samples: Sequence[Sample],
    kinds: Mapping[str, KindModel],
    length: float,
    scale: float,
    noise: Mapping[str, float],
) -> AdditiveModel:
    columns = sum(1 + len(kind.points) for kind in kinds.values())
    empty = np.zeros(columns)
    model = AdditiveModel(kinds, length, scale, empty, np.eye(columns), noise, dict.fromkeys(NUMBERS, 1.0))
    rows, residuals = _equations(samples, model)
    certainty = np.array([model.noise[numbers_of(sample.terms)] for sample in samples]) ** -2
    covariance = np.linalg.inv((rows.T * certainty) @ rows + np.eye(columns))
    return replace(model, weights=covariance @ (rows.T @ (certainty * residuals)), covariance=covariance)


def _equations(samples: Sequence[Sample], model: AdditiveModel) -> tuple[Array, Array]:
    """Of each sample, relative to its cost: its row (samples, columns), and what the guess leaves (samples,)."""
    rows, residuals = [], []
    for sample in samples:
        guesses = model.guesses(sample.terms)
        rows.append(model.rows(sample.terms, guesses).sum(axis=0) / sample.cost)
        residuals.append(1 - guesses.sum() / sample.cost)
    return np.array(rows), np.array(residuals)


def _by_numbers(samples: Sequence[Sample]) -> dict[str, Array]:
    numbers = np.array([numbers_of(sample.terms) for sample in samples])
    return {name: np.flatnonzero(numbers == name) for name in NUMBERS}


def _noise_of(samples: Sequence[Sample], left: Left) -> dict[str, float]:
    """What the errors of samples left out leave for noise, by what they compute in; of all where there are few."""
    noise = {}
    for name, members in _by_numbers(samples).items():
        chosen = members if len(members) >= FEWEST else np.arange(len(samples))
        noise[name] = max(1.4826 * float(np.median(np.abs(left.errors[chosen]))), _LEAST_NOISE)
    return noise


def _widening(samples: Sequence[Sample], left: Left) -> dict[str, float]:
    """The factor by which intervals would have held what they promise, likewise."""
    ratios = np.abs(left.errors) / left.spreads / 1.6448536269514722
    widening = {}
    for name, members in _by_numbers(samples).items():
        chosen = members if len(members) >= FEWEST else np.arange(len(samples))
        widening[name] = float(np.quantile(ratios[chosen], NOMINAL))
    return widening
