"""Designs as numbers that models can learn from: how much each decision takes away, in one or a few coordinates.

What adds up over decisions is told twice: by each decision alone, and by all of one kind together. What rounding one
block to 2 bits does is so learned of all blocks at once, and then by how much each differs from the others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from search_spaces.design import METHOD_KINDS, Kind
from search_spaces.precision import FLOAT_BITS, parse_precision
from search_spaces.samplers.gaussian_process import Inputs
from search_spaces.sensitivity import FEWEST_BITS
from search_spaces.space import Decision, Indices

Numbers = NDArray[np.float64]

METHOD_DISTANCE = 0.35
"""Of two methods along each of their coordinates: nobody knows which are alike."""


class Encoding:
    """Tables of one space."""

    def __init__(self, decisions: Sequence[Decision]) -> None:
        coordinates = [_coordinates(decision) for decision in decisions]
        self._width = len(decisions)
        self._decisions = np.repeat(np.arange(self._width), [one.shape[1] for one in coordinates])
        self._coordinates = _padded([column for one in coordinates for column in one.T])
        terms = _terms(decisions)
        self._of_terms = np.repeat(np.arange(self._width), [one.shape[1] for one in terms])
        self._terms = _padded([column for one in terms for column in one.T])
        self._sums = _sums([(decision.kind, one.shape[1]) for decision, one in zip(decisions, terms, strict=True)])

    def __call__(self, rows: Sequence[Indices] | NDArray[np.int64], sizes: Numbers) -> Inputs:
        """Designs as inputs of a process.

        Args:
            rows: choice indices, (designs, decisions).
            sizes: how much each decision matters, (decisions,), as `Sensitivity.sizes` tells it; only ratios count.
        """
        indices = np.asarray(rows, dtype=np.int64).reshape(len(rows), self._width)
        if not self._width:
            return Inputs(np.zeros((len(rows), 0)), np.zeros((len(rows), 0)))
        weights = np.clip(np.sqrt(sizes / max(float(sizes.mean()), 1e-12)), 0.2, 2.0)
        places = self._coordinates[np.arange(len(self._decisions)), indices[:, self._decisions]]
        terms = self._terms[np.arange(len(self._of_terms)), indices[:, self._of_terms]]
        # Rows lie together, however numpy has looked them up: sums over them depend on that in their last digits.
        features = np.ascontiguousarray(np.concatenate([terms, terms @ self._sums], axis=1))
        return Inputs(features, np.ascontiguousarray(weights[self._decisions] * places))


def _terms(decisions: Sequence[Decision]) -> list[Numbers]:
    """What the loss of each choice is linear in, (choices, terms): the same terms for all decisions of one kind.

    Bits are levels that nobody knows the distances of, so there is a term for each step down; the rest is a share that
    is taken away, with its square.
    """
    levels = {kind: _levels(kind, decisions) for kind in {one.kind for one in decisions} & _BITS}
    return [_terms_of(decision, levels.get(decision.kind, ())) for decision in decisions]


def _terms_of(decision: Decision, levels: Sequence[Numbers]) -> Numbers:
    coordinates = _coordinates(decision)
    if decision.kind in METHOD_KINDS:
        return coordinates
    if decision.kind in _BITS:
        steps = [coordinates[:, [column]] >= of_column[None, 1:] for column, of_column in enumerate(levels)]
        return np.concatenate(steps, axis=1).astype(np.float64)
    return np.concatenate([coordinates, coordinates**2], axis=1)


_BITS = frozenset({Kind.PRECISION, Kind.WEIGHT_BITS, Kind.ACTIVATION_BITS})


def _levels(kind: Kind, decisions: Sequence[Decision]) -> list[Numbers]:
    """What choices of a kind have for each coordinate, ascending."""
    return [np.unique(column) for column in np.concatenate([_coordinates(d) for d in decisions if d.kind is kind]).T]


def _sums(terms: Sequence[tuple[Kind, int]]) -> Numbers:
    """Which terms are added up, (terms, sums): those in the same place of decisions of one kind."""
    names = [(kind, place) for kind, count in terms for place in range(count) if kind not in METHOD_KINDS]
    columns = {name: number for number, name in enumerate(dict.fromkeys(names))}
    rows = [columns.get((kind, place)) for kind, count in terms for place in range(count)]
    sums = np.zeros((len(rows), len(columns)))
    for row, column in enumerate(rows):
        if column is not None:
            sums[row, column] = 1.0
    return sums


def _padded(columns: Sequence[Numbers]) -> Numbers:
    """Tables of numbers by choice, (tables, most choices), with what is never read where there are fewer."""
    table = np.full((len(columns), max(map(len, columns), default=0)), np.nan)
    for row, column in zip(table, columns, strict=True):
        row[: len(column)] = column
    return table


def _coordinates(decision: Decision) -> Numbers:
    """Of each choice, (choices, coordinates)."""
    if decision.kind in METHOD_KINDS:
        return METHOD_DISTANCE * np.eye(len(decision.choices))
    match decision.kind:
        case Kind.CHANNELS:
            counts = np.array(decision.choices, dtype=np.float64)
            column = 1 - counts / counts.max()
        case Kind.PRECISION:
            precisions = [parse_precision(str(choice)) for choice in decision.choices]
            bits = np.array([(one.weight_bits, one.activation_bits) for one in precisions])
            return _coarseness(bits)
        case Kind.WEIGHT_BITS | Kind.ACTIVATION_BITS:
            column = _coarseness(np.array(decision.choices))
        case _:
            octaves = np.log2(np.array(decision.choices, dtype=np.float64))
            column = octaves / max(float(np.ptp(octaves)), 1.0)
    return np.asarray(column, dtype=np.float64)[:, None]


def _coarseness(bits: NDArray[np.int64]) -> Numbers:
    """0 for floats, 1 for 2 bits: half of the amplitude of rounding, half of the bits that are gone."""
    amplitude = 2.0 ** (FEWEST_BITS - np.minimum(bits, FLOAT_BITS).astype(np.float64))
    gone = 1 - np.log2(bits) / np.log2(FLOAT_BITS)
    coarseness: Numbers = 0.5 * amplitude + 0.5 * gone
    return coarseness
