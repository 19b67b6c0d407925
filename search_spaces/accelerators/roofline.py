"""Graphics processors by their peak figures: each operator takes as long as its arithmetic or its traffic, the longer.

The roofline of Williams et al. (CACM 2009). No real kernel is as fast as a peak, so that latencies are lower bounds: of
use for comparing networks, not for promising milliseconds. Peaks are the makers' data-sheet values, named at each chip.
Two things are assumptions of our own: what starting a kernel takes, and how the board's power divides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from search_spaces.accelerators.layers import Column
from search_spaces.accelerators.operators import Operators

KERNEL_START_S = 5e-6
"""Assumed: an operator takes so long before it computes anything. Small networks on large chips are little else."""
IDLE_SHARE = 0.25
"""Assumed: the share of the board's power that is drawn whatever it does."""
ARITHMETIC_SHARE = 0.5
"""Assumed: the share of the other power that is the multipliers' when they and the memory both run at their peaks."""


@dataclass(frozen=True, slots=True)
class Roofline:
    """A chip's peaks. A MAC is two of the operations that data sheets count.

    Attributes:
        float_macs_per_s: fp32, without tensor cores (which round fp32 to fewer bits).
        integer_macs_per_s: 8 by 8 bits, dense; None where the chip has no such instruction.
        bytes_per_s: of its memory.
        board_w: the board's power limit.
        source: where the figures are from, and which of them is computed from others.
    """

    float_macs_per_s: float
    integer_macs_per_s: float | None
    bytes_per_s: float
    board_w: float
    source: str


CHIPS: Mapping[str, Roofline] = {
    "p100": Roofline(9.3e12 / 2, None, 732e9, 250, "Tesla P100 PCIe 16 GB data sheet; it has no int8 dot product"),
    "p4000": Roofline(
        5.3e12 / 2,
        4 * 5.3e12 / 2,
        243e9,
        105,
        "Quadro P4000 data sheet; int8 is computed: 4 MACs (dp4a) for each in fp32",
    ),
    "v100": Roofline(
        14e12 / 2,
        4 * 14e12 / 2,
        900e9,
        250,
        "Tesla V100 PCIe data sheet; int8 is computed: 4 MACs (dp4a) for each in fp32",
    ),
    "t4": Roofline(8.1e12 / 2, 130e12 / 2, 320e9, 70, "Tesla T4 data sheet"),
    "a100": Roofline(19.5e12 / 2, 624e12 / 2, 1555e9, 400, "A100 SXM 40 GB data sheet, without sparsity"),
    "h100": Roofline(67e12 / 2, 1979e12 / 2, 3.35e12, 700, "H100 SXM data sheet, int8 without sparsity"),
}


def cost(operators: Operators, chip: Roofline) -> tuple[Column, Column]:
    """Seconds and joules of one image, (...) of what the columns are (..., operators).

    Energy is the idle power for that long, and on top of it for each MAC and each byte what makes the board reach its
    power limit when multipliers and memory both run at their peaks.
    """
    compute_s = operators.macs / _peaks(operators, chip)
    memory_s = operators.bytes_moved / chip.bytes_per_s
    latency_s = np.sum(KERNEL_START_S + np.maximum(compute_s, memory_s), axis=-1)
    busy_s = np.sum(ARITHMETIC_SHARE * compute_s + (1 - ARITHMETIC_SHARE) * memory_s, axis=-1)
    return latency_s, IDLE_SHARE * chip.board_w * latency_s + (1 - IDLE_SHARE) * chip.board_w * busy_s


def _peaks(operators: Operators, chip: Roofline) -> Column:
    if chip.integer_macs_per_s is None:
        assert operators.is_float.all(), "the precision has been checked"
        return np.full(operators.macs.shape, chip.float_macs_per_s)
    return np.where(operators.is_float, chip.float_macs_per_s, chip.integer_macs_per_s)
