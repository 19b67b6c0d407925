"""What is said when a user's data set cannot be used: every fault with its place and its remedy. Knows no format."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MOST_FAULTS = 50


@dataclass(frozen=True, slots=True)
class DatasetFault:
    """One thing that is wrong.

    Attributes:
        part: where: a file in the archive, `labels.csv, line 7`, or `the archive`.
        message: what is wrong there and what would be right.
    """

    part: str
    message: str

    def __str__(self) -> str:
        return f"{self.part}: {self.message}"


class DatasetRefusedError(ValueError):
    """The data set cannot be used as it is.

    Attributes:
        faults: the first of them.
        count: how many there are in all.
    """

    def __init__(self, faults: Sequence[DatasetFault], count: int | None = None) -> None:
        self.faults = tuple(faults[:MOST_FAULTS])
        self.count = len(faults) if count is None else count
        more = self.count - len(self.faults)
        super().__init__("\n".join(map(str, self.faults)) + (f"\nand {more:,} more" if more > 0 else ""))


class UnreadableError(ValueError):
    """One image cannot be used; the message says what is wrong with it and what would be right."""


def refuse(part: str, message: str) -> DatasetRefusedError:
    """The refusal for a single fault, to be raised."""
    return DatasetRefusedError([DatasetFault(part, message)])


def refuse_any(faults: Iterable[DatasetFault]) -> None:
    """Raise when there are faults. However many there are, no more are kept than are shown.

    Raises:
        DatasetRefusedError: there are.
    """
    kept: list[DatasetFault] = []
    count = 0
    for count, fault in enumerate(faults, 1):
        if count <= MOST_FAULTS:
            kept.append(fault)
    if kept:
        raise DatasetRefusedError(kept, count)
