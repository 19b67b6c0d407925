"""What is wrong with a table: the first faults by row, and how many there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

import numpy as np

from search_spaces.faults import Fault
from service.errors import ProblemError

MOST_NAMED = 20
LONGEST_VALUE = 300


class InvalidTableError(ProblemError):
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    slug = "invalid-table"
    title = "The table cannot be imported"


def refuse_table(detail: str, *faults: Fault) -> InvalidTableError:
    """Of a table as a whole."""
    return InvalidTableError(f"{detail}; nothing was imported", faults=faults, extra={"fault_count": len(faults) or 1})


@dataclass
class RowFaults:
    """Collects what is wrong with which row; rows are counted from 1, without the line of names."""

    count: int = 0
    named: list[tuple[int, str, str]] = field(default_factory=list)

    def add(self, rows: np.ndarray, column: str, message: str, values: Sequence[object] = ()) -> None:
        """Rows that have the same fault.

        Args:
            rows: their numbers.
            column: at fault.
            message: what to do; `{}` stands for the value.
            values: of the rows, as far as there are any.
        """
        self.count += len(rows)
        for index, row in enumerate(rows[:MOST_NAMED]):
            value = str(values[index])[:LONGEST_VALUE] if index < len(values) else ""
            self.named.append((int(row), column, message.replace("{}", value)))
        self.named = sorted(self.named)[:MOST_NAMED]

    def refuse(self, row_count: int) -> None:
        """Raises `InvalidTableError` when there are any."""
        if self.count:
            faults = [Fault(f"/rows/{row}/{column}", message) for row, column, message in self.named]
            more = f"; the first {len(faults)} are named" if self.count > len(faults) else ""
            detail = f"{self.count:,} faults in {row_count:,} rows{more}; nothing was imported"
            raise InvalidTableError(detail, faults=faults, extra={"fault_count": self.count})
