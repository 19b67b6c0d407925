"""What a layer is stored and computed in. Pure data: knows nothing of runtimes.

`fp32` is floating point; `w4a8` means 4-bit weights and an 8-bit input activation. Which pairs a
device executes is listed in its capabilities, never here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

FLOAT_BITS = 32
_PATTERN = re.compile(r"w(?P<weight>[1-9]|[12][0-9]|3[012])a(?P<activation>[1-9]|[12][0-9]|3[012])")


@dataclass(frozen=True, slots=True, order=True)
class Precision:
    """Bits of a layer's weights and of its input activation; 32 means floating point."""

    weight_bits: int
    activation_bits: int

    @property
    def is_float(self) -> bool:
        return self.weight_bits == FLOAT_BITS and self.activation_bits == FLOAT_BITS

    def __str__(self) -> str:
        return "fp32" if self.is_float else f"w{self.weight_bits}a{self.activation_bits}"


FP32 = Precision(FLOAT_BITS, FLOAT_BITS)
W8A8 = Precision(8, 8)


def parse_precision(text: str) -> Precision:
    """Read `fp32` or `w<bits>a<bits>`.

    Raises:
        ValueError: the text is neither.
    """
    if text == "fp32":
        return FP32
    match = _PATTERN.fullmatch(text)
    if match is None or text == "w32a32":  # One way to say it, so that equal precisions are equal texts.
        raise ValueError(f"{text!r} is not a precision: write fp32, or w<bits>a<bits> such as w8a8")
    return Precision(int(match["weight"]), int(match["activation"]))
