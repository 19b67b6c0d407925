"""How each metric is shown to people: its name, unit and digits. Stored and sent values keep base units."""

from __future__ import annotations

import math
from dataclasses import dataclass

from search_spaces.objectives import Metric

ABSENT = "-"
_SMALL, _DIGITS_OF_SMALL = 0.1, 3
"""Below, so many digits that are not leading zeros are shown."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Shown value = stored value x `factor`, with `digits` after the point; more where few would show little of it."""

    title: str
    symbol: str
    factor: float
    digits: int

    @property
    def heading(self) -> str:
        return f"{self.title} ({self.symbol})" if self.symbol else self.title

    def show(self, value: float | None) -> str:
        if value is None:
            return ABSENT
        shown = value * self.factor
        digits = self.digits
        if 0 < abs(shown) < _SMALL:
            digits = max(digits, _DIGITS_OF_SMALL - 1 - math.floor(math.log10(abs(shown))))
        return f"{shown:,.{digits}f}"


UNITS: dict[Metric, Unit] = {
    Metric.ACCURACY: Unit("accuracy", "%", 100.0, 2),
    Metric.TOP5_ACCURACY: Unit("top-5 accuracy", "%", 100.0, 2),
    Metric.BALANCED_ACCURACY: Unit("balanced accuracy", "%", 100.0, 2),
    Metric.F1: Unit("F1", "%", 100.0, 2),
    Metric.ROC_AUC: Unit("ROC AUC", "%", 100.0, 2),
    Metric.MEAN_ABSOLUTE_ERROR: Unit("mean absolute error", "", 1.0, 4),
    Metric.R2: Unit("R2", "%", 100.0, 2),
    Metric.LATENCY_S: Unit("latency", "ms", 1e3, 3),
    Metric.ENERGY_J: Unit("energy", "mJ", 1e3, 3),
    Metric.MEMORY_BYTES: Unit("memory", "kB", 1e-3, 1),
    Metric.SIZE_BYTES: Unit("size", "kB", 1e-3, 1),
    Metric.MACS: Unit("MACs", "M", 1e-6, 2),
    Metric.PARAMETERS: Unit("parameters", "k", 1e-3, 1),
    Metric.ACTIVATION_TRAFFIC_BYTES: Unit("activation traffic", "kB", 1e-3, 1),
    Metric.PEAK_ACTIVATION_BYTES: Unit("peak activation", "kB", 1e-3, 1),
    Metric.ACTIVATION_BYTES: Unit("coded activations", "kB", 1e-3, 1),
    Metric.ACTIVATION_NONZERO_SHARE: Unit("non-zero activations", "%", 100.0, 2),
}

_KNOWN = frozenset(str(metric) for metric in UNITS)


def unit_of(metric: str) -> Unit:
    """Of a score that somebody has installed: its name, and the number as it is."""
    return UNITS[Metric(metric)] if metric in _KNOWN else Unit(metric.replace("_", " "), "", 1.0, 4)


def show_with_unit(metric: str, value: float | None) -> str:
    """Such as `90.31 %`; a dash where there is no value."""
    unit = unit_of(metric)
    return ABSENT if value is None else f"{unit.show(value)} {unit.symbol}".strip()


def show_seconds(seconds: float) -> str:
    """Such as `48 s` or `3 min 05 s`."""
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02d} s"
