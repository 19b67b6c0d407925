"""What somebody who hands over a table says of it, where the file does not."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from search_spaces.objectives import Metric, Provenance
from search_spaces.spec import Family, Side

NAME = r"^[A-Za-z0-9][A-Za-z0-9._ -]*$"
Whole = Annotated[int, Field(ge=1, le=2**31 - 1)]


class TableFormat(StrEnum):
    """How figures lie in a file; `docs/measurements.md` describes each."""

    CSV = "csv"
    PARQUET = "parquet"
    HAQ = "haq"
    PROXYLESS = "proxyless"
    APQ = "apq"


class Unit(StrEnum):
    """Of the figures in a file. As they are written: mJ is not MJ."""

    S = "s"
    MS = "ms"
    US = "us"
    NS = "ns"
    J = "J"
    MJ = "mJ"
    UJ = "uJ"
    NJ = "nJ"
    BYTES = "bytes"
    KB = "kB"
    MB = "MB"


UNITS: dict[Unit, tuple[Metric, float]] = {
    Unit.S: (Metric.LATENCY_S, 1.0),
    Unit.MS: (Metric.LATENCY_S, 1e3),
    Unit.US: (Metric.LATENCY_S, 1e6),
    Unit.NS: (Metric.LATENCY_S, 1e9),
    Unit.J: (Metric.ENERGY_J, 1.0),
    Unit.MJ: (Metric.ENERGY_J, 1e3),
    Unit.UJ: (Metric.ENERGY_J, 1e6),
    Unit.NJ: (Metric.ENERGY_J, 1e9),
    Unit.BYTES: (Metric.MEMORY_BYTES, 1.0),
    Unit.KB: (Metric.MEMORY_BYTES, 1e-3),
    Unit.MB: (Metric.MEMORY_BYTES, 1e-6),
}
"""Metric, and how many of the unit make one of the metric's own: dividing by 1000 is exact where times 0.001 is not."""


_OF_HAQ = {"family", "width", "input", "stem_stride", "classes", "clock_hz"}


class TableSettings(BaseModel):
    """Settings of an import. What a file says of a row goes before what is said here.

    Attributes:
        format: by default CSV or Parquet, as the file's first bytes say.
        device: that the figures are of.
        new_device: take a device that no worker has announced, such as a phone.
        unit: of the values, where neither a column nor its name says so.
        batch: images of one inference.
        threads: that the runtime could use; 1 where there is no such thing.
        runtime: what executed, such as `tflite 2.16`.
        count: how many values each figure is of.
        provenance: what the figures are where they come from: measured or simulated.
        precision: of blocks, whose tables do not tell it.
        family, width, input, stem_stride, classes: the catalog network whose layers a table in HAQ's format has.
        clock_hz: cycles in a second, of that format.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: TableFormat | None = None
    device: Annotated[str, Field(max_length=100, pattern=NAME)] | None = None
    new_device: bool = False
    unit: Unit | None = None
    batch: Whole | None = None
    threads: Whole | None = None
    runtime: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[\x20-\x7e]+$")] | None = None
    count: Whole | None = None
    provenance: Provenance | None = None
    precision: Annotated[str, Field(pattern=r"^(fp32|w[0-9]{1,2}a[0-9]{1,2})$")] | None = None
    family: Family | None = None
    width: FiniteFloat = Field(default=1.0, gt=0.0, le=4.0)
    input: tuple[Side, Side, Side] | None = None
    stem_stride: int | None = Field(default=None, ge=1, le=2)
    classes: Annotated[int, Field(ge=1, le=100_000)] | None = None
    clock_hz: FiniteFloat | None = Field(default=None, gt=0.0, le=1e12)

    @model_validator(mode="after")
    def _of_its_format(self) -> TableSettings:
        alien = sorted(_OF_HAQ & self.model_fields_set)
        if alien and self.format is not TableFormat.HAQ:
            raise ValueError(f"{', '.join(alien)}: that is of tables of format haq; leave it out, or say the format")
        return self
