"""A network's cost as a sum over its operators, each of them a physical guess corrected by a smooth function.

    T(network) = sum over terms of  p(term) * (1 + g_kind(coordinates of the term))

`p` is a non-negative combination of the term's amounts (a start, and time for each multiply-accumulate and each element
moved). `g` is one Gaussian process for each kind of operator, over the logarithms of its sizes, by a few inducing
points (Snelson and Ghahramani, NIPS 2005). Only sums are ever observed: whole networks, measured. Since a sum is
linear in the weights of all `g`, their posterior is that of a Bayesian linear regression, in closed form, and so is the
interval of a prediction. Fitting is in `workers.additive_fit`; this half needs numpy alone, so that the service can
predict.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.cost_models.terms import Format, Term, terms_of
from search_spaces.network import Network

Array = NDArray[np.float64]
NOMINAL = 0.90
"""Share of measurements that an interval is meant to hold."""


MOST_NAMED = 3


class UncoveredError(ValueError):
    """A network has operators of kinds or sizes that the model was never fitted to. `kinds` names them."""

    def __init__(self, kinds: Sequence[str]) -> None:
        named = ", ".join(kinds[:MOST_NAMED]) + (
            f" and {len(kinds) - MOST_NAMED} more" if len(kinds) > MOST_NAMED else ""
        )
        super().__init__(f"nothing like {named} of such sizes was measured on this device")
        self.kinds = tuple(kinds)


@dataclass(frozen=True)
class Prediction:
    """What a network is expected to take, and the interval that holds `NOMINAL` of measurements.

    Attributes:
        spread: relative standard deviation.
        parts: of each term, in order, what it adds to the value.
    """

    value: float
    low: float
    high: float
    spread: float
    parts: tuple[float, ...]


@dataclass(frozen=True)
class KindModel:
    """How one kind of operator is judged.

    Attributes:
        rates: cost of each amount, (amounts,).
        points: inducing points, (points, coordinates); none: no correction but a constant one.
        whiten: inverse Cholesky factor of the points' covariance, (points, points).
        start: column of the kind's constant correction; those of its points follow it.
        low, high: range of the coordinates that were measured, (coordinates,).
    """

    rates: Array
    points: Array
    whiten: Array
    start: int
    low: Array
    high: Array

    def covers(self, coordinates: Sequence[float]) -> bool:
        """Whether sizes are at most `BEYOND` outside of what was measured."""
        outside = np.maximum(self.low - coordinates, coordinates - self.high)
        return bool((outside <= BEYOND).all())


BEYOND = 1.0
"""Doublings of a size beyond what was measured that are still answered, with an interval that says so."""


@dataclass(frozen=True)
class Neighbours:
    """The networks that a model was fitted to, and how wrong it was on each without having seen it.

    Some are measured less steadily than others (those that do not fit a cache, say), so that one figure for all would
    be too wide for most and too narrow for some. Networks are alike when like kinds of work take like shares.

    Attributes:
        shares: (networks, kinds).
        errors: absolute, relative to the cost, (networks,).
        spreads: standard deviations that the model gave these errors, (networks,).
    """

    shares: Array
    errors: Array
    spreads: Array

    def judge(self, shares: Array) -> tuple[float, float]:
        """Of a network with these shares: the noise of its measurement, and the factor that its interval needs."""
        nearest = self.nearest(shares)
        errors = self.errors[nearest]
        noise = max(ROBUST * float(np.median(errors)), LEAST_NOISE)
        return noise, _quantile(errors / self.spreads[nearest]) / HALF_WIDTH

    def noises(self) -> Array:
        """Of the networks themselves, (networks,)."""
        return np.array([self.judge(shares)[0] for shares in self.shares])

    def nearest(self, shares: Array) -> NDArray[np.intp]:
        apart = np.abs(self.shares - shares).sum(axis=1)
        count = min(NEIGHBOURS, len(apart))
        return np.argpartition(apart, count - 1)[:count]


def _quantile(ratios: Array) -> float:
    """What the next one is below with probability `NOMINAL`, whatever they are distributed like (split conformal)."""
    rank = min(math.ceil(NOMINAL * (len(ratios) + 1)), len(ratios))
    return float(np.partition(ratios, rank - 1)[rank - 1])


NEIGHBOURS = 60
ROBUST, LEAST_NOISE = 1.4826, 0.003
"""Standard deviation for a median absolute one, of a normal distribution; and what clocks do not go below."""


@dataclass(frozen=True)
class _Sum:
    """A network's terms added up.

    Attributes:
        direction: what the value is multiplied with by each correction, relative to it, (columns,).
        unseen: variance that no correction stands for, relative to the value squared.
    """

    value: float
    parts: Array
    direction: Array
    unseen: float
    shares: Array


@dataclass(frozen=True)
class AdditiveModel:
    """See the module.

    Attributes:
        kinds: by the kind of a term.
        length: over which `g` changes, in doublings of a size.
        scale: prior standard deviation of `g`.
        weights: posterior mean of the corrections, (columns,).
        covariance: of their posterior, (columns, columns).
        neighbours: how wrong the model is on networks like this or that one.
    """

    kinds: Mapping[str, KindModel]
    length: float
    scale: float
    weights: Array
    covariance: Array
    neighbours: Neighbours

    def predict(self, network: Network) -> Prediction:
        """Predict one network; 1 to 2 ms.

        Raises:
            UncoveredError: it has operators of a kind, or of a size, that was not measured.
        """
        return self.predict_terms(terms_of(network))

    def predict_terms(self, terms: Sequence[Term]) -> Prediction:
        """As `predict`, of terms."""
        found = self._sum(terms)
        return self._with_interval(found.value, found.direction, found.unseen, found)

    def predict_ratio(self, network: Network, base: Network) -> Prediction:
        """How many times its base's cost a network has. What the model has wrong of both alike does not count.

        Raises:
            UncoveredError: as `predict`, of either.
        """
        one, other = self._sum(terms_of(network)), self._sum(terms_of(base))
        direction = one.direction - other.direction
        return self._with_interval(one.value / other.value, direction, one.unseen + other.unseen, one)

    def _sum(self, terms: Sequence[Term]) -> _Sum:
        self._check_covered(terms)
        guesses = self.guesses(terms)
        rows = self.rows(terms, guesses)
        parts = guesses + rows @ self.weights
        value = float(parts.sum())
        if value <= 0:
            raise UncoveredError(sorted({term.kind for term in terms}))
        unseen = float(self.unseen(terms, rows, guesses).sum()) / value**2
        return _Sum(value, parts, rows.sum(axis=0) / value, unseen, self.shares(terms, guesses))

    def _check_covered(self, terms: Sequence[Term]) -> None:
        unknown = {
            term.kind
            for term in terms
            if term.kind not in self.kinds or not self.kinds[term.kind].covers(term.coordinates)
        }
        if unknown:
            raise UncoveredError(sorted(unknown))

    def _with_interval(self, value: float, direction: Array, unseen: float, found: _Sum) -> Prediction:
        noise, widen = self.neighbours.judge(found.shares)
        spread = float(np.sqrt(direction @ self.covariance @ direction + unseen + noise**2))
        half = HALF_WIDTH * widen * spread * value
        return Prediction(value, max(value - half, 0.0), value + half, spread, tuple(map(float, found.parts)))

    def guesses(self, terms: Sequence[Term]) -> Array:
        """`p` of each term, (terms,)."""
        return np.array([float(self.kinds[term.kind].rates @ term.amounts) for term in terms])

    def shares(self, terms: Sequence[Term], guesses: Array) -> Array:
        """What share of the guess each kind of term has, (kinds,)."""
        place = {kind: number for number, kind in enumerate(self.kinds)}
        shares = np.zeros(len(place))
        np.add.at(shares, [place[term.kind] for term in terms], guesses)
        normalised: Array = shares / max(guesses.sum(), np.finfo(float).tiny)
        return normalised

    def unseen(self, terms: Sequence[Term], rows: Array, guesses: Array) -> Array:
        """Variance of each term's correction that its inducing points say nothing of, (terms,).

        None at a point, all of the prior's far from every one: without it a model would be sure of what it never saw
        (the diagonal of Snelson and Ghahramani's equation 8).
        """
        variance = np.zeros(len(terms))
        for number, term in enumerate(terms):
            model = self.kinds[term.kind]
            if len(model.points):
                prior = (self.scale * guesses[number]) ** 2
                known = float((rows[number, model.start + 1 : model.start + 1 + len(model.points)] ** 2).sum())
                variance[number] = max(prior - known, 0.0)
        return variance

    def rows(self, terms: Sequence[Term], guesses: Array) -> Array:
        """What each term's corrections are multiplied with, (terms, columns)."""
        rows = np.zeros((len(terms), len(self.weights)))
        members: dict[str, list[int]] = {}
        for number, term in enumerate(terms):
            members.setdefault(term.kind, []).append(number)
        for kind, numbers in members.items():
            model = self.kinds[kind]
            rows[numbers, model.start] = self.scale * guesses[numbers]
            if len(model.points):
                places = np.array([terms[number].coordinates for number in numbers])
                smooth = similarity(places, model.points, self.length) @ model.whiten.T
                columns = slice(model.start + 1, model.start + 1 + len(model.points))
                rows[numbers, columns] = self.scale * guesses[numbers, None] * smooth
        return rows


HALF_WIDTH = 1.6448536269514722
"""Standard deviations of a normal distribution that hold `NOMINAL` of it."""

NUMBERS = ("float", "integer", "mixed")


def numbers_of(terms: Sequence[Term]) -> str:
    """Whether a network's layers compute in floating point, in integers, or some in each."""
    integer = {term.kind.endswith(Format.INTEGER) for term in terms if len(term.amounts) == _LAYER_AMOUNTS}
    return "mixed" if len(integer) > 1 else "integer" if True in integer else "float"


_LAYER_AMOUNTS = 5


def similarity(places: Array, points: Array, length: float) -> Array:
    """Squared-exponential covariance of (n, d) and (m, d): (n, m)."""
    apart = ((places[:, None, :] - points[None, :, :]) ** 2).sum(axis=-1)
    covariance: Array = np.exp(-0.5 * apart / length**2)
    return covariance


def model_to_bytes(model: AdditiveModel) -> bytes:
    """As a numpy archive without pickled objects."""
    about = {
        "length": model.length,
        "scale": model.scale,
        "kinds": [[kind, part.start, list(part.rates)] for kind, part in model.kinds.items()],
    }
    arrays: dict[str, Any] = {"about": np.frombuffer(json.dumps(about).encode(), np.uint8)}
    for number, part in enumerate(model.kinds.values()):
        arrays[f"points{number}"], arrays[f"whiten{number}"] = part.points, part.whiten
        arrays[f"range{number}"] = np.stack([part.low, part.high])
    arrays["weights"], arrays["covariance"] = model.weights, model.covariance.astype(np.float32)
    near = model.neighbours
    arrays |= {"shares": near.shares.astype(np.float32), "errors": near.errors, "spreads": near.spreads}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def model_from_bytes(data: bytes) -> AdditiveModel:
    """Inverse of `model_to_bytes`."""
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        about = json.loads(arrays["about"].tobytes())
        kinds = {
            kind: KindModel(
                np.array(rates), arrays[f"points{number}"], arrays[f"whiten{number}"], start, *arrays[f"range{number}"]
            )
            for number, (kind, start, rates) in enumerate(about["kinds"])
        }
        covariance, shares = (arrays[name].astype(np.float64) for name in ("covariance", "shares"))
        neighbours = Neighbours(shares, arrays["errors"], arrays["spreads"])
        return AdditiveModel(kinds, about["length"], about["scale"], arrays["weights"], covariance, neighbours)
