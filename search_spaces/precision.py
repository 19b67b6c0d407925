"""What a layer is stored and computed in. Pure data: knows nothing of runtimes.

`fp32` is floating point; `w4a8` means 4-bit weights and an 8-bit input activation; `k2a32` means weights of four
values, stored as 2-bit indices into a codebook (k-means), which are computed with as floating point. Which pairs a
device executes is listed in its capabilities, never here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

FLOAT_BITS = 32
CONTAINER_BITS = 8
"""Integers are computed with in containers of as many bits: ONNX Runtime's smaller types do not fuse."""

WEIGHT_BITS = (1, 2, 3, 4, 5, 6, 7, 8, 16, FLOAT_BITS)
ACTIVATION_BITS = (2, 3, 4, 5, 6, 7, 8, 16, FLOAT_BITS)
CODEBOOK_BITS = (1, 2, 3, 4, 5, 6, 7, 8)
"""What may be asked for; published tables hold others too."""

_PATTERN = re.compile(r"(?P<form>[wk])(?P<weight>[1-9]|[12][0-9]|3[012])a(?P<activation>[1-9]|[12][0-9]|3[012])")


@dataclass(frozen=True, slots=True, order=True)
class Precision:
    """Bits of a layer's weights and of its input activation; 32 means floating point.

    Attributes:
        is_codebook: whether weights are indices of their bits into a codebook, instead of integers times a scale.
    """

    weight_bits: int
    activation_bits: int
    is_codebook: bool = False

    @property
    def is_float(self) -> bool:
        return self.weight_bits == FLOAT_BITS and self.activation_bits == FLOAT_BITS

    @property
    def is_integer(self) -> bool:
        """Whether it is computed in integers: both sides fit into 8 bits, and weights are not looked up."""
        return max(self.weight_bits, self.activation_bits) <= CONTAINER_BITS and not self.is_codebook

    def __str__(self) -> str:
        form = "k" if self.is_codebook else "w"
        return "fp32" if self.is_float else f"{form}{self.weight_bits}a{self.activation_bits}"


FP32 = Precision(FLOAT_BITS, FLOAT_BITS)
W8A8 = Precision(8, 8)


def parse_precision(text: str) -> Precision:
    """Read `fp32`, `w<bits>a<bits>` or `k<bits>a<bits>`.

    Raises:
        ValueError: the text is none of them.
    """
    if text == "fp32":
        return FP32
    match = _PATTERN.fullmatch(text)
    if match is None or text in ("w32a32", "k32a32"):  # One way to say it: equal precisions are equal texts.
        raise ValueError(f"{text!r} is not a precision: write fp32, or w<bits>a<bits> such as w8a8")
    return Precision(int(match["weight"]), int(match["activation"]), match["form"] == "k")


def at_least_8_bits(precision: Precision) -> Precision:
    """The same with both sides raised to 8 bits where they have fewer."""
    weights, activations = (max(bits, CONTAINER_BITS) for bits in (precision.weight_bits, precision.activation_bits))
    return replace(precision, weight_bits=weights, activation_bits=activations)


def why_not_computable(precision: Precision) -> str:
    """Why no file can be written in a precision, and what could be; empty where one can."""
    weights, activations = precision.weight_bits, precision.activation_bits
    if precision.is_codebook and weights not in CODEBOOK_BITS:
        return f"{precision}: a codebook takes {_listed(CODEBOOK_BITS)} bits, not {weights}"
    if weights not in WEIGHT_BITS:
        return f"{precision}: weights take {_listed(WEIGHT_BITS)} bits, not {weights}"
    if activations not in ACTIVATION_BITS:
        return f"{precision}: activations take {_listed(ACTIVATION_BITS)} bits, not {activations}"
    if activations <= CONTAINER_BITS and not precision.is_integer:
        return (
            f"{precision}: activations of {CONTAINER_BITS} bits or fewer are computed with integer weights of as few; "
            f"write w8a{activations}, or leave activations at {FLOAT_BITS}"
        )
    return ""


def _listed(bits: tuple[int, ...]) -> str:
    return f"{', '.join(map(str, bits[:-1]))} or {bits[-1]}"
