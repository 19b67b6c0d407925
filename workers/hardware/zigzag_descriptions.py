"""Descriptions of accelerators for ZigZag: YAML files that come with it, or that an operator has written.

It must not load ZigZag: which devices there are is asked often.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

PROGRAM_VERSION = "1"
"""Raised whenever `zigzag_program` or `zigzag_layers` changes a figure."""


class AcceleratorFile(BaseModel):
    """`device.yaml`: what a description of ZigZag's lacks.

    Attributes:
        clock_hz: of the array.
        description: one line, for people.
        channel_divisor: channel counts that fill the array are multiples of this.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    clock_hz: float = Field(gt=0, allow_inf_nan=False)
    description: str = Field(default="", max_length=300)
    channel_divisor: int = Field(default=1, ge=1)


@dataclass(frozen=True)
class Description:
    """An accelerator.

    Attributes:
        hardware: ZigZag's YAML of memories and array.
        mapping: ZigZag's YAML of how loops are laid out on the array; None: ZigZag looks for the best, which takes
            some three times as long.
        file: what is said beside them.
    """

    hardware: Path
    mapping: Path | None
    file: AcceleratorFile

    @property
    def digest(self) -> str:
        """Of everything that figures depend on, but for the layer and the clock."""
        mapping = self.mapping.read_bytes() if self.mapping else b""
        parts = (self.hardware.read_bytes(), mapping, f"{version('zigzag-dse')} {PROGRAM_VERSION}".encode())
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def fault_of(description: Description) -> str:
    """What is plainly wrong with it; ZigZag itself looks at the rest when it is first used."""
    hardware = yaml.safe_load(description.hardware.read_text(encoding="utf-8"))
    if not isinstance(hardware, dict) or not {"name", "memories", "operational_array"} <= hardware.keys():
        return f"{description.hardware.name} lacks name, memories or operational_array, as ZigZag wants them"
    if description.mapping and not isinstance(yaml.safe_load(description.mapping.read_text(encoding="utf-8")), list):
        return f"{description.mapping.name} is no list of mappings, as ZigZag wants it"
    return ""


def read_folder(folder: Path) -> Description:
    """`hardware.yaml`, `device.yaml`, and `mapping.yaml` if it is there. Raises `ValueError`, naming the field."""
    text = (folder / "device.yaml").read_text(encoding="utf-8")
    try:
        file = AcceleratorFile.model_validate(yaml.safe_load(text))
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, fault['loc'])) or 'the file'}: {fault['msg']}" for fault in error.errors())
        raise ValueError(f"device.yaml: {'; '.join(faults)}") from None
    mapping = folder / "mapping.yaml"
    return Description(folder / "hardware.yaml", mapping if mapping.exists() else None, file)


def _shipped(hardware: str, mapping: str | None, file: AcceleratorFile) -> Description:
    spec = find_spec("zigzag")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("zigzag-dse has no files of its own here")
    inputs = Path(spec.origin).parent / "inputs"
    laid_out = None if mapping is None else inputs / "mapping" / f"{mapping}.yaml"
    return Description(inputs / "hardware" / f"{hardware}.yaml", laid_out, file)


DESCRIPTIONS: Mapping[str, Callable[[], Description]] = {
    "zigzag-tpu-like": partial(
        _shipped,
        "tpu_like",
        "tpu_like",
        AcceleratorFile(
            clock_hz=700e6, description="32 x 32 units as in the first TPU, its clock assumed", channel_divisor=32
        ),
    ),
    "zigzag-edge-tpu-like": partial(
        _shipped,
        "edge_tpu_like",
        "edge_tpu_like",
        AcceleratorFile(
            clock_hz=500e6, description="8 x 8 x 4 x 4 units as in the Edge TPU, the clock assumed", channel_divisor=8
        ),
    ),
    "zigzag-eyeriss-like": partial(
        _shipped,
        "eyeriss_like",
        None,
        AcceleratorFile(clock_hz=200e6, description="14 x 12 units as in Eyeriss, at its published clock"),
    ),
}
