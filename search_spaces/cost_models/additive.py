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


class UncoveredError(ValueError):
    """A network has kinds of operators that the model was never fitted to. `kinds` names them."""

    def __init__(self, kinds: Sequence[str]) -> None:
        super().__init__(f"nothing like {', '.join(kinds)} was measured on this device")
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
    """

    rates: Array
    points: Array
    whiten: Array
    start: int


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
        return noise, float(np.quantile(errors / self.spreads[nearest], NOMINAL)) / HALF_WIDTH

    def noises(self) -> Array:
        """Of the networks themselves, (networks,)."""
        return np.array([self.judge(shares)[0] for shares in self.shares])

    def nearest(self, shares: Array) -> NDArray[np.intp]:
        apart = np.abs(self.shares - shares).sum(axis=1)
        count = min(NEIGHBOURS, len(apart))
        return np.argpartition(apart, count - 1)[:count]


NEIGHBOURS = 60
ROBUST, LEAST_NOISE = 1.4826, 0.003
"""Standard deviation for a median absolute one, of a normal distribution; and what clocks do not go below."""


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
            UncoveredError: it has operators of a kind that was not measured.
        """
        return self.predict_terms(terms_of(network))

    def predict_terms(self, terms: Sequence[Term]) -> Prediction:
        """As `predict`, of terms."""
        unknown = sorted({term.kind for term in terms} - self.kinds.keys())
        if unknown:
            raise UncoveredError(unknown)
        guesses = self.guesses(terms)
        rows = self.rows(terms, guesses)
        parts = guesses + rows @ self.weights
        value = float(parts.sum())
        total = rows.sum(axis=0)
        noise, widen = self.neighbours.judge(self.shares(terms, guesses))
        spread = float(np.hypot(np.sqrt(total @ self.covariance @ total) / value, noise))
        half = HALF_WIDTH * widen * spread * value
        return Prediction(value, max(value - half, 0.0), value + half, spread, tuple(map(float, parts)))

    def guesses(self, terms: Sequence[Term]) -> Array:
        """`p` of each term, (terms,)."""
        return np.array([float(self.kinds[term.kind].rates @ term.amounts) for term in terms])

    def shares(self, terms: Sequence[Term], guesses: Array) -> Array:
        """What share of the guess each kind of term has, (kinds,)."""
        place = {kind: number for number, kind in enumerate(self.kinds)}
        shares = np.zeros(len(place))
        np.add.at(shares, [place[term.kind] for term in terms], guesses)
        normalised: Array = shares / guesses.sum()
        return normalised

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
            kind: KindModel(np.array(rates), arrays[f"points{number}"], arrays[f"whiten{number}"], start)
            for number, (kind, start, rates) in enumerate(about["kinds"])
        }
        covariance, shares = (arrays[name].astype(np.float64) for name in ("covariance", "shares"))
        neighbours = Neighbours(shares, arrays["errors"], arrays["spreads"])
        return AdditiveModel(kinds, about["length"], about["scale"], arrays["weights"], covariance, neighbours)
