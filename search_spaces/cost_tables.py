"""Costs as sums of tables, each over few decisions: what an integer program can be told of them.

What one layer takes depends on its own decisions, and on those of the layers that it reads and that read it. Which
these are is found by looking: a part of the cost depends on a decision where changing it changes the part, from any of
some designs. The tables of parts that depend on few decisions are complete, and so exact. What is left, such as a layer
that reads many others, is the sum of what single decisions and pairs of them change about one design: exact for MACs
and parameters, which are products of two channel counts, and near to it close to that design.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import prod

import numpy as np
from numpy.typing import NDArray

from search_spaces.batch_costs import BatchCosts, Numbers
from search_spaces.batch_shapes import Integers

Scope = tuple[int, ...]
"""Numbers of decisions, ascending."""

MOST_CELLS = (1024, 256, 64)
"""Of one complete table. The first is taken with which all tables have no more than MOST_CELLS_TOGETHER."""
MOST_CELLS_TOGETHER = 15_000
ANCHORS = 6
PROBES = 32
ROUNDING = 1e-9


@dataclass(frozen=True)
class Range:
    """What a cost must lie in."""

    least: float = -np.inf
    most: float = np.inf


@dataclass(frozen=True, eq=False)
class CostTables:
    """Costs of designs: a constant, and of each table the entry at the design's choices.

    Attributes:
        metrics: the costs.
        constant: (metrics,).
        tables: by the decisions that they are over, (metrics, choices of the first, choices of the second, ...).
        exact: the metrics that are told without error.
    """

    metrics: tuple[str, ...]
    constant: Numbers
    tables: Mapping[Scope, Numbers]
    exact: frozenset[str]

    def __call__(self, rows: Sequence[Sequence[int]] | Integers) -> Numbers:
        """(designs, metrics), of designs as choice indices."""
        choices = np.asarray(rows, dtype=np.int64)
        told = np.repeat(self.constant[None], len(choices), axis=0)
        for scope, table in self.tables.items():
            told += table[(slice(None), *choices[:, scope].T)].T
        return told


def cost_tables(costs: BatchCosts, levels: Sequence[int], metrics: Sequence[str]) -> CostTables:
    """Tables of costs that are sums over parts.

    Args:
        costs: of a space.
        levels: number of choices of each of its decisions.
        metrics: of `costs.sums`, at least one.
    """
    parts = _Parts(costs, tuple(levels), tuple(metrics))
    scopes = parts.scopes()
    sizes = {scope: prod(levels[decision] for decision in scope) for scope in scopes}
    most = next((most for most in MOST_CELLS if _together(sizes, most) <= MOST_CELLS_TOGETHER), MOST_CELLS[-1])
    found: dict[Scope, Numbers] = {}
    for scope, members in scopes.items():
        is_complete = sizes[scope] <= most or len(scope) <= 2
        made = parts.complete(scope, members) if is_complete else parts.in_pairs(scope, members)
        for decisions, table in made:
            found[decisions] = found.get(decisions, 0.0) + table
    constant = found.pop((), np.zeros(len(metrics)))
    tables = CostTables(tuple(metrics), constant, _absorbed(found), frozenset())
    return replace(tables, exact=_exact(tables, costs, levels))


def _together(sizes: Mapping[Scope, int], most: int) -> int:
    """Cells of all tables, about: those in pairs are counted as one of the most cells that is allowed."""
    return sum(min(size, most) for size in sizes.values())


def _exact(tables: CostTables, costs: BatchCosts, levels: Sequence[int]) -> frozenset[str]:
    rows = np.random.default_rng(1).integers(levels, size=(PROBES, len(levels)))
    estimated, told = tables(rows), costs(rows, tables.metrics)
    pairs = zip(tables.metrics, estimated.T, strict=True)
    return frozenset(metric for metric, column in pairs if np.allclose(column, told[metric], rtol=ROUNDING, atol=0))


def _absorbed(tables: Mapping[Scope, Numbers]) -> dict[Scope, Numbers]:
    """Tables over several decisions that others hold as well are added to them: a program is the smaller for it."""
    kept: dict[Scope, Numbers] = {}
    for scope in sorted(tables, key=lambda scope: (-len(scope), scope)):
        home = next((other for other in kept if len(scope) > 1 and set(scope) < set(other)), None)
        if home is None:
            kept[scope] = tables[scope]
            continue
        shape = [size if d in scope else 1 for d, size in zip(home, kept[home].shape[1:], strict=True)]
        kept[home] = kept[home] + tables[scope].reshape(-1, *shape)
    return kept


@dataclass(frozen=True, eq=False)
class _Parts:
    """The parts of several costs, side by side."""

    costs: BatchCosts
    levels: tuple[int, ...]
    metrics: tuple[str, ...]

    def __call__(self, rows: Integers) -> tuple[Numbers, Integers]:
        """(designs, parts), and the number of each part's metric."""
        told = [self.costs.parts(rows, metric) for metric in self.metrics]
        return np.concatenate(told, axis=1), np.repeat(np.arange(len(told)), [part.shape[1] for part in told])

    def scopes(self) -> dict[Scope, NDArray[np.intp]]:
        """By the decisions that parts depend on, the numbers of those parts."""
        generator = np.random.default_rng(0)
        width = len(self.levels)
        drawn = generator.integers(self.levels, size=(ANCHORS, width))
        anchors = np.vstack([np.zeros((1, width), np.int64), np.array(self.levels)[None] - 1, drawn])
        depends = np.stack([self._depends(anchors, decision) for decision in range(width)], axis=1)
        distinct, group = np.unique(depends, axis=0, return_inverse=True)
        return {
            tuple(map(int, np.flatnonzero(row))): np.flatnonzero(group.reshape(-1) == number)
            for number, row in enumerate(distinct)
        }

    def _depends(self, anchors: Integers, decision: int) -> NDArray[np.bool_]:
        """Whether each part changes with the decision, (parts,)."""
        level = self.levels[decision]
        rows = np.repeat(anchors, level, axis=0)
        rows[:, decision] = np.tile(np.arange(level), len(anchors))
        told = self(rows)[0].reshape(len(anchors), level, -1)
        changes = np.ptp(told, axis=1) > ROUNDING * np.abs(told).max(axis=1)
        return np.asarray(changes.any(axis=0))

    def complete(self, scope: Scope, members: NDArray[np.intp]) -> Iterator[tuple[Scope, Numbers]]:
        yield scope, self._table(scope, members)

    def in_pairs(self, scope: Scope, members: NDArray[np.intp]) -> Iterator[tuple[Scope, Numbers]]:
        """What one decision changes about the middle of the space, and what two together do that they do not alone."""
        middle = self._table((), members)
        alone = {d: self._table((d,), members) - middle[:, None] for d in scope}
        yield (), middle
        yield from (((d,), table) for d, table in alone.items())
        for one, other in combinations(scope, 2):
            both = self._table((one, other), members) - middle[:, None, None]
            both -= alone[one][:, :, None] + alone[other][:, None, :]
            if (np.abs(both) > ROUNDING * np.abs(middle)[:, None, None]).any():
                yield (one, other), both

    def _table(self, scope: Scope, members: NDArray[np.intp]) -> Numbers:
        """(metrics, choices of each decision): what some parts take, all other decisions in the middle."""
        shape = [self.levels[decision] for decision in scope]
        rows = np.repeat(np.array([[level // 2 for level in self.levels]]), prod(shape), axis=0)
        if scope:
            rows[:, scope] = np.indices(shape).reshape(len(scope), -1).T
        told, metric = self(rows)
        by_metric = np.equal.outer(metric[members], np.arange(len(self.metrics))).astype(np.float64)
        table: Numbers = (told[:, members] @ by_metric).T.reshape(len(self.metrics), *shape)
        return table
