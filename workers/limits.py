"""Which limits known values miss, in words. Knows no network and no device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from search_spaces.spec import LimitSpec


def missed_limits(limits: Sequence[LimitSpec], values: Mapping[str, float]) -> str:
    """For people: which limits the known values miss; empty when none."""
    missed = []
    for limit in limits:
        value = values.get(limit.metric)
        if value is not None and limit.max is not None and not value <= limit.max:
            missed.append(f"{limit.metric} {_readable(value)} exceeds the limit {_readable(limit.max)}")
        if value is not None and limit.min is not None and not value >= limit.min:
            missed.append(f"{limit.metric} {_readable(value)} is below the limit {_readable(limit.min)}")
    return "; ".join(missed)


def _readable(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"
