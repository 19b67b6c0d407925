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
from scipy.sparse import csr_array

from search_spaces.cost_models.additive import AdditiveModel, Array, KindModel, Neighbours, similarity
from search_spaces.cost_models.terms import Term

FEWEST = 12
"""Networks that a model is fitted to at least."""

FOLDS = 5
DISTURBED = 2.5
"""Spreads beyond which a sample is taken to have been disturbed."""

MOST_POINTS = 40
_LENGTHS, _SCALES = (0.7, 1.5, 3.0), (0.1, 0.3, 0.6)
_CLOSE = 0.2
"""Doublings within which two places need no inducing point each."""
_JITTER = 1e-4
_FIRST_NOISE = 0.015
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


@dataclass(frozen=True)
class _Samples:
    """Samples as matrices: many have terms in common.

    Attributes:
        terms: those that differ.
        counts: how often each sample has each, divided by its cost, (samples, terms).
    """

    terms: tuple[Term, ...]
    counts: csr_array


def fit(samples: Sequence[Sample]) -> AdditiveModel:
    """Fit a model; seconds for a thousand samples.

    Raises:
        TooFewError: fewer than `FEWEST` samples.
    """
    if len(samples) < FEWEST:
        raise TooFewError(f"a cost model needs {FEWEST} measured networks at least; there are {len(samples)}")
    table = _tabulate(samples)
    rates = _fit_rates(table)
    noise = np.full(len(samples), _FIRST_NOISE)
    for _ in range(2):  # how smooth, then how noisy; then how smooth, that being known
        fitted = [_fit_all(table, rates, length, scale, noise) for length, scale in product(_LENGTHS, _SCALES)]
        model, left = min(fitted, key=lambda pair: _surprise(pair[1]))
        noise = _neighbours(table, model, left).noises() * _doubt(left)
    model, _ = _fit_all(table, rates, model.length, model.scale, noise)
    return replace(model, neighbours=_neighbours(table, model, _cross_validate(table, model, noise)))


def _cross_validate(table: _Samples, chosen: AdditiveModel, noise: Array) -> Left:
    """Errors on each part of the samples by a model of the other parts: rates and corrections, all of it.

    With few samples the rates alone can explain each of them, and leaving one out of the corrections shows nothing.
    """
    count = table.counts.shape[0]
    errors, spreads = np.empty(count), np.empty(count)
    for fold in range(FOLDS):
        inside = np.arange(count) % FOLDS == fold
        part = replace(table, counts=table.counts[~inside])
        model, _ = _fit_all(part, _fit_rates(part), chosen.length, chosen.scale, noise[~inside])
        guesses = model.guesses(table.terms)
        rows, counts = model.rows(table.terms, guesses), table.counts[inside]
        totals, seen = counts @ rows, 1 - counts @ guesses
        errors[inside] = seen - totals @ model.weights
        unseen = counts.power(2) @ model.unseen(table.terms, rows, guesses)
        spreads[inside] = np.sqrt(((totals @ model.covariance) * totals).sum(axis=1) + unseen + noise[inside] ** 2)
    return Left(errors, spreads)


def _doubt(left: Left) -> Array:
    """How much noisier a sample is taken to be than those like it, (samples,): so far off that it was disturbed.

    A machine has slow minutes that no protocol sees; as with Huber's loss such samples count less, and none is dropped.
    """
    return np.maximum(1.0, np.abs(left.errors) / (DISTURBED * left.spreads))


def _surprise(left: Left) -> float:
    """Negative logarithm of the density that the predictions gave to what was left out, per sample."""
    return float(np.mean(np.log(left.spreads) + 0.5 * (left.errors / left.spreads) ** 2))


def _tabulate(samples: Sequence[Sample]) -> _Samples:
    places: dict[Term, int] = {}
    rows, columns, values = [], [], []
    for number, sample in enumerate(samples):
        for term in sample.terms:
            rows.append(number)
            columns.append(places.setdefault(term, len(places)))
            values.append(1 / sample.cost)
    counts = csr_array((values, (rows, columns)), shape=(len(samples), len(places)))
    return _Samples(tuple(places), counts)


def _fit_rates(table: _Samples) -> dict[str, Array]:
    """The physical guess: non-negative least squares on relative errors."""
    widths = {term.kind: len(term.amounts) for term in table.terms}
    starts = dict(zip(widths, np.cumsum([0, *widths.values()]).tolist(), strict=False))
    amounts = np.zeros((len(table.terms), sum(widths.values())))
    for row, term in zip(amounts, table.terms, strict=True):
        row[starts[term.kind] : starts[term.kind] + widths[term.kind]] = term.amounts
    largest = np.maximum(amounts.max(axis=0), 1.0)
    relative = table.counts @ (amounts / largest)
    pull = _PULL * relative.mean() * np.eye(relative.shape[1])
    wanted = np.concatenate([np.ones(len(relative)), np.zeros(len(pull))])
    found, _ = nnls(np.concatenate([relative, pull]), wanted, maxiter=30 * relative.shape[1])
    rates = found / largest
    return {kind: rates[start : start + widths[kind]] for kind, start in starts.items()}


def _lay_out(table: _Samples, rates: Mapping[str, Array], length: float) -> dict[str, KindModel]:
    """The kinds with their inducing points and columns."""
    places: dict[str, set[tuple[float, ...]]] = {kind: set() for kind in rates}
    for term in table.terms:
        places[term.kind].add(term.coordinates)
    kinds: dict[str, KindModel] = {}
    start = 0
    for kind, own in rates.items():
        own_places = np.array(sorted(places[kind]))
        points = _spread_points(own_places)
        covariance = similarity(points, points, length) + _JITTER * np.eye(len(points))
        whiten = np.linalg.inv(np.linalg.cholesky(covariance))
        kinds[kind] = KindModel(own, points, whiten, start, own_places.min(axis=0), own_places.max(axis=0))
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


def _fit_all(
    table: _Samples, rates: Mapping[str, Array], length: float, scale: float, noise: Array
) -> tuple[AdditiveModel, Left]:
    """The model with these choices, and what it says of samples left out, in closed form.

    For a linear model with hat value h, the error without a sample is its residual / (1 - h), and the variance of that
    error sigma^2 / (1 - h) (Rasmussen and Williams 2006, section 5.4.2, in weight space).
    """
    kinds = _lay_out(table, rates, length)
    columns = sum(1 + len(kind.points) for kind in kinds.values())
    nobody = Neighbours(np.empty((0, len(kinds))), np.empty(0), np.empty(0))
    model = AdditiveModel(kinds, length, scale, np.zeros(columns), np.eye(columns), nobody)
    guesses = model.guesses(table.terms)
    rows, residuals = table.counts @ model.rows(table.terms, guesses), 1 - table.counts @ guesses
    weighted = rows.T / noise**2
    covariance = np.linalg.inv(weighted @ rows + np.eye(columns))
    weights = covariance @ (weighted @ residuals)
    kept = np.clip(1 - ((rows @ covariance) * rows).sum(axis=1) / noise**2, 1e-6, None)
    left = Left((residuals - rows @ weights) / kept, noise / np.sqrt(kept))
    return replace(model, weights=weights, covariance=covariance), left


def _neighbours(table: _Samples, model: AdditiveModel, left: Left) -> Neighbours:
    place = {kind: number for number, kind in enumerate(model.kinds)}
    by_kind = np.zeros((len(table.terms), len(place)))
    by_kind[np.arange(len(table.terms)), [place[term.kind] for term in table.terms]] = model.guesses(table.terms)
    amounts = table.counts @ by_kind
    return Neighbours(amounts / amounts.sum(axis=1, keepdims=True), np.abs(left.errors), left.spreads)
