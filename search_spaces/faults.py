"""What is wrong with a document, where, and what would be right."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a spec.

    Attributes:
        pointer: RFC 6901, into the spec; empty for the whole of it.
        message: what is wrong and what would be right.
    """

    pointer: str
    message: str


class SpecError(ValueError):
    """A spec cannot be accepted. `faults` has everything that is wrong with it."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("; ".join(f"{fault.pointer or 'spec'}: {fault.message}" for fault in faults))
        self.faults = faults
