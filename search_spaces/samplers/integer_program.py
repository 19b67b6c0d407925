"""The design of least loss within limits on its costs, as an integer program (HiGHS, by scipy).

One binary variable for each choice of each decision. Costs of pruning are not separable by layer: each table of costs
(`search_spaces.cost_tables`) has a variable for each of its cells, which sum up to the variables of its decisions in
every direction. They need not be declared whole numbers: where the choices are, they are.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from search_spaces.cost_tables import CostTables, Range, Scope
from search_spaces.space import Indices

Numbers = NDArray[np.float64]

TIME_LIMIT_S = 5.0
MOST_NODES = 500
"""Of the search tree. It ends long searches, and the same on any machine."""
GAP = 5e-3
"""How far from the best a design's loss may be, as a share of it: nobody knows losses so well, and proofs take long."""
_LOSSES, _TIE = 1e3, 1e-3
"""What all losses together weigh, and a cost that decides between designs of equal loss: above what is tolerated."""
_INFEASIBLE = 2


class OutOfTimeError(Exception):
    """The solver found no design within its limits."""


class IntegerProgram:
    """Programs of one space. `levels` is the number of choices of each decision."""

    def __init__(self, levels: Sequence[int], tables: CostTables) -> None:
        self._levels = tuple(levels)
        self._tables = tables
        self._starts = np.concatenate([[0], np.cumsum(self._levels)])
        joint = [scope for scope in tables.tables if len(scope) > 1]
        cells = [tables.tables[scope][0].size for scope in joint]
        self._joint = dict(zip(joint, self._starts[-1] + np.concatenate([[0], np.cumsum(cells)]), strict=False))
        self.variables = int(self._starts[-1] + sum(cells))
        self._costs = self._cost_rows()
        scale = np.array([sum(np.ptp(table[m]) for table in tables.tables.values()) for m in range(len(self._costs))])
        self._scale = np.where(scale > 0, scale, 1.0)
        self._consistent = self._consistency()

    def __call__(self, losses: Sequence[Numbers], ranges: Mapping[str, Range], cheap: str) -> Indices | None:
        """The design of least summed loss whose costs lie in their ranges; of equal ones, that of the least `cheap`.

        None where there is no such design. The best that was found where the solver comes to its limits.

        Raises:
            OutOfTimeError: none was found in time.
        """
        metrics = self._tables.metrics
        weights = self._costs[metrics.index(cheap)] * (_TIE / self._scale[metrics.index(cheap)])
        weights[: self._starts[-1]] += np.concatenate(losses) * (_LOSSES / (sum(loss.max() for loss in losses) or 1.0))
        solution = self._solve(weights, [self._consistent, *self._limits(ranges)])
        if solution is None:
            return None
        chosen = np.split(solution[: self._starts[-1]], self._starts[1:-1])
        return tuple(int(np.argmax(choices)) for choices in chosen)

    def _solve(self, weights: Numbers, constraints: Sequence[LinearConstraint]) -> Numbers | None:
        is_whole = np.arange(self.variables) < self._starts[-1]
        options = {"time_limit": TIME_LIMIT_S, "node_limit": MOST_NODES, "mip_rel_gap": GAP}
        # What follows is handed on to HiGHS, as scipy warns.
        options |= {"threads": 1, "random_seed": 0, "mip_abs_gap": 1e-9, "mip_feasibility_tolerance": 1e-9}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Unrecognized options", RuntimeWarning)
            found = milp(weights, integrality=is_whole, bounds=Bounds(0, 1), constraints=constraints, options=options)
        if found.status == _INFEASIBLE:
            return None
        if found.x is None:
            raise OutOfTimeError(found.message)
        solution: Numbers = found.x
        return solution

    def _limits(self, ranges: Mapping[str, Range]) -> list[LinearConstraint]:
        rows, least, most = [], [], []
        for metric, wanted in ranges.items():
            number = self._tables.metrics.index(metric)
            scale, constant = self._scale[number], self._tables.constant[number]
            rows.append(self._costs[number] / scale)
            least.append((wanted.least - constant) / scale)
            most.append((wanted.most - constant) / scale)
        return [LinearConstraint(csr_array(np.array(rows)), least, most)] if rows else []

    def _cost_rows(self) -> Numbers:
        """What each variable costs, (metrics, variables)."""
        rows = np.zeros((len(self._tables.metrics), self.variables))
        for scope, table in self._tables.tables.items():
            start = self._joint[scope] if len(scope) > 1 else self._starts[scope[0]]
            rows[:, start : start + table[0].size] += table.reshape(len(rows), -1)
        return rows

    def _consistency(self) -> LinearConstraint:
        """One choice for each decision; the cells of a table with a choice sum up to that choice."""
        decisions = len(self._levels)
        rows: list[NDArray[Any]] = [np.repeat(np.arange(decisions), self._levels)]
        columns: list[NDArray[Any]] = [np.arange(self._starts[-1])]
        values: list[NDArray[Any]] = [np.ones(self._starts[-1])]
        height = decisions
        for scope, start in self._joint.items():
            for row, column, value in self._marginals(scope, start):
                rows.append(height + row)
                columns.append(column)
                values.append(value)
                height += int(row.max()) + 1
        places = (np.concatenate(rows), np.concatenate(columns))
        matrix = csr_array((np.concatenate(values), places), shape=(height, self.variables))
        right = np.concatenate([np.ones(decisions), np.zeros(height - decisions)])
        return LinearConstraint(matrix, right, right)

    def _marginals(self, scope: Scope, start: int) -> list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
        """For each decision of a table the rows, columns and values of one constraint for each of its choices."""
        levels = [self._levels[decision] for decision in scope]
        places = np.indices(levels).reshape(len(scope), -1)
        cells = start + np.arange(places.shape[1])
        found = []
        for decision, level, place in zip(scope, levels, places, strict=True):
            own = np.arange(level)
            columns = np.concatenate([cells, self._starts[decision] + own])
            values = np.concatenate([np.ones(len(cells)), -np.ones(level)])
            found.append((np.concatenate([place, own]), columns, values))
        return found
