"""Group sizes that a convolution can have, and the nearest of them to one that does not divide its channels.

A conv of M input and N output channels in g groups reads G = M / g channels for each output. Two ways of choosing for
a whole network: constant G, so that g grows with the width (E2GC, Jha et al., arXiv 2006.15100), and constant g, so
that G does (FgGC there; ResNeXt, Xie et al., arXiv 1611.05431). It must not know designs or networks.
"""

from __future__ import annotations

import math
from functools import lru_cache


@lru_cache(maxsize=4096)
def possible_group_counts(inputs: int, outputs: int) -> tuple[int, ...]:
    """Every g that divides both channel counts, ascending."""
    common = math.gcd(inputs, outputs)
    small = [number for number in range(1, math.isqrt(common) + 1) if common % number == 0]
    return tuple(sorted({*small, *(common // number for number in small)}))


def nearest_group_count(inputs: int, outputs: int, wanted: int) -> int:
    """The possible g nearest to the one that is wanted, as a ratio. No two are as near unless `wanted` is possible."""
    return _nearest(inputs, outputs, math.log2(wanted))


def nearest_group_size(inputs: int, outputs: int, wanted: int) -> int:
    """The possible G nearest to the one that is wanted, as a ratio."""
    return inputs // _nearest(inputs, outputs, math.log2(inputs) - math.log2(wanted))


def _nearest(inputs: int, outputs: int, wanted_octave: float) -> int:
    return min(possible_group_counts(inputs, outputs), key=lambda count: abs(math.log2(count) - wanted_octave))
