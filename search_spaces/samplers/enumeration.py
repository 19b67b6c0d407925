"""The design of least loss within limits on its costs, in a space that is small enough to look at all of it.

What `integer_program` finds, and of any cost; in a thousandth of a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from search_spaces.batch_costs import BatchCosts, Numbers
from search_spaces.cost_tables import Range
from search_spaces.space import Indices

MOST_DESIGNS = 20_000


class Enumeration:
    """All designs of a space with what they cost. `levels` is the number of choices of each decision."""

    def __init__(self, levels: Sequence[int], costs: BatchCosts, metrics: Sequence[str]) -> None:
        self._rows = np.indices(tuple(levels)).reshape(len(levels), -1).T
        self._costs = costs(self._rows, metrics)

    def __call__(self, losses: Sequence[Numbers], ranges: Mapping[str, Range], cheap: str) -> Indices | None:
        """The design of least summed loss whose costs lie in their ranges; of equal ones, that of the least `cheap`."""
        total = np.stack([loss[column] for loss, column in zip(losses, self._rows.T, strict=True)]).sum(axis=0)
        allowed = np.ones(len(total), dtype=np.bool_)
        for metric, wanted in ranges.items():
            allowed &= (self._costs[metric] >= wanted.least) & (self._costs[metric] <= wanted.most)
        if not allowed.any():
            return None
        left = np.flatnonzero(allowed)
        best = left[np.lexsort((self._costs[cheap][left], total[left]))[0]]
        return tuple(map(int, self._rows[best]))
