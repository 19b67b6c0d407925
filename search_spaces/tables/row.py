"""One figure of a table, in base units, and what is wrong with a table."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from statistics import fmean, pstdev

from search_spaces.costs import Workload
from search_spaces.objectives import Metric

QUARTILE_OF_NORMAL = 0.6744897501960817
"""Quartiles of a normal distribution are the mean less and plus so many standard deviations."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """A figure.

    Attributes:
        place: where in the file, for people.
        value: in the metric's own unit; of a table that tells means, the mean.
        deviation: standard deviation in the same unit; 0 where the table tells none.
        count: how many values the figure is of; None where the table does not say.
    """

    place: str
    workload: Workload
    metric: Metric
    value: float
    deviation: float = 0.0
    count: int | None = None


@dataclass(eq=False)
class TableError(ValueError):
    """A file is not the table that it should be: (where, what to do) of each fault."""

    faults: list[tuple[str, str]] = field(default_factory=list)

    def __str__(self) -> str:
        return "; ".join(f"{where}: {what}" for where, what in self.faults[:3])


def merge_equal_work(rows: list[TableRow]) -> list[TableRow]:
    """One row for each metric of each workload, with the mean and the deviation of what the rows say."""
    groups: dict[tuple[str, Metric], list[TableRow]] = {}
    for row in rows:
        groups.setdefault((row.workload.digest, row.metric), []).append(row)
    return [
        replace(group[0], value=fmean(one.value for one in group), deviation=pstdev(one.value for one in group))
        for group in groups.values()
    ]
