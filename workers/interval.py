"""How closely a share is known from so many images."""

from __future__ import annotations

import math

_Z_95 = 1.959963984540054


def wilson_interval(share: float, total: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share of `total` images (Wilson, 1927): sensible near 0 and 1 and for few images."""
    z_squared = _Z_95**2
    centre = share + z_squared / (2 * total)
    half_width = _Z_95 * math.sqrt(share * (1 - share) / total + z_squared / (4 * total**2))
    scale = 1 + z_squared / total
    return max(0.0, (centre - half_width) / scale), min(1.0, (centre + half_width) / scale)
