"""What a file of figures holds, gathered while it is read, and how much of it there may be. Reads no column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from search_spaces.costs import WorkloadKind
from search_spaces.signatures import AnySignature, SignatureError, read_signature
from service.measurements.actions import Stated, WorkloadKey
from service.measurements.chunk import Chunk
from service.measurements.columns import ABSENT
from service.measurements.conditions import conditions_digest
from service.measurements.faults import RowFaults, refuse_table
from service.measurements.table_conditions import Told, UnfitError, state
from service.measurements.table_settings import TableSettings

MOST_SAMPLES_IN_ALL = 20_000_000
MOST_CHARACTERS = 2**28
"""Of the distinct texts that are kept while a file is read."""
MOST_CONDITIONS = 10_000
MOST_DEVICES = 100


@dataclass
class Collected:
    """What a file holds.

    Attributes:
        devices: fingerprint of each device that is known, by name.
        workloads: each once; a kind of None where a file tells only a digest.
        parts: of their signatures; None where there is no signature.
        first_rows: where each workload was met.
        conditions: device, fingerprint, protocol, each combination once.
    """

    devices: Mapping[str, Mapping[str, Any]]
    settings: TableSettings
    faults: RowFaults = field(default_factory=RowFaults)
    workloads: list[tuple[WorkloadKind | None, str, str]] = field(default_factory=list)
    parts: list[AnySignature | None] = field(default_factory=list)
    first_rows: list[int] = field(default_factory=list)
    conditions: list[Stated] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    row_count: int = 0
    sample_count: int = 0
    _character_count: int = 0
    _by_digest: dict[str, int] = field(default_factory=dict)
    _by_signature: dict[str, int | str] = field(default_factory=dict)
    _by_combination: dict[Told, int | tuple[str, str]] = field(default_factory=dict)
    _by_conditions: dict[str, int] = field(default_factory=dict)
    _devices_met: set[str] = field(default_factory=set)

    def keys(self) -> dict[str, WorkloadKey]:
        """The workloads whose kind is known, by digest."""
        return {
            digest: WorkloadKey(kind, digest, signature)
            for kind, digest, signature in self.workloads
            if kind is not None
        }

    def add_signature(self, text: str, row: int) -> int | str:
        """Its index, or what is wrong with it."""
        if text not in self._by_signature:
            self._count_characters(len(text))
            try:
                read = read_signature(text)
            except SignatureError as error:
                self._by_signature[text] = str(error)
            else:
                one = read.workload
                index = self._add(one.digest, (one.kind, one.digest, one.signature), read.parts, row)
                if self.parts[index] is None:
                    self.workloads[index], self.parts[index] = (one.kind, one.digest, one.signature), read.parts
                self._by_signature[text] = index
        return self._by_signature[text]

    def add_digest(self, digest: str, kind: WorkloadKind | None, row: int) -> int:
        """The index of a workload of which only this is told."""
        return self._add(digest, (kind, digest, ""), None, row)

    def find_digest(self, digest: str) -> int:
        """Its index, or `ABSENT`."""
        return self._by_digest.get(digest, ABSENT)

    def add_combination(self, told: Told) -> int | tuple[str, str]:
        """The index of the conditions that these columns tell, or (column, what is wrong)."""
        if told not in self._by_combination:
            self._count_characters(sum(len(text) for text in told if text is not None))
            try:
                stated = state(told, self.devices, self.settings)
            except UnfitError as error:
                self._by_combination[told] = (error.column, error.message)
            else:
                digest = conditions_digest(*stated)
                if digest not in self._by_conditions:
                    self._by_conditions[digest] = len(self.conditions)
                    self.conditions.append(stated)
                    self._check_conditions(stated[0])
                self._by_combination[told] = self._by_conditions[digest]
        return self._by_combination[told]

    def count_samples(self, count: int) -> None:
        """Raises `InvalidTableError` when the file has too many."""
        self.sample_count += count
        if self.sample_count > MOST_SAMPLES_IN_ALL:
            raise refuse_table(f"more than {MOST_SAMPLES_IN_ALL:,} samples in all; hand over fewer rows or samples")

    def _count_characters(self, count: int) -> None:
        self._character_count += count
        if self._character_count > MOST_CHARACTERS:
            raise refuse_table(
                f"signatures and conditions of more than {MOST_CHARACTERS:,} characters; hand over fewer rows at once"
            )

    def _check_conditions(self, device: str) -> None:
        self._devices_met.add(device)
        if len(self.conditions) > MOST_CONDITIONS:
            raise refuse_table(f"more than {MOST_CONDITIONS:,} different conditions; split the file")
        if len(self._devices_met) > MOST_DEVICES:
            raise refuse_table(f"more than {MOST_DEVICES:,} devices; split the file")

    def _add(self, digest: str, key: tuple[WorkloadKind | None, str, str], parts: AnySignature | None, row: int) -> int:
        if digest not in self._by_digest:
            self._by_digest[digest] = len(self.workloads)
            self.workloads.append(key)
            self.parts.append(parts)
            self.first_rows.append(row)
        return self._by_digest[digest]
