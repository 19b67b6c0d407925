"""Why a file cannot be imported: every reason at once, each with the part that it is about and a remedy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MOST_FAULTS = 50


@dataclass(frozen=True, slots=True)
class ImportFault:
    """One reason.

    Attributes:
        part: what it is about, such as `node /layer1/Resize` or `initializer conv1.weight`; empty for the whole file.
        message: what is wrong and what would be right.
    """

    part: str
    message: str


class ImportRefusedError(ValueError):
    """A file cannot be imported. `faults` has every reason that was found, at most `MOST_FAULTS`."""

    def __init__(self, faults: Sequence[ImportFault]) -> None:
        shown = tuple(faults[:MOST_FAULTS])
        super().__init__(
            "; ".join(f"{fault.part}: {fault.message}" if fault.part else fault.message for fault in shown)
        )
        self.faults = shown


def refuse(message: str, part: str = "") -> ImportRefusedError:
    """A refusal for one reason, to be raised."""
    return ImportRefusedError([ImportFault(part, message)])
