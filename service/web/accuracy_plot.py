"""Predicted against measured as SVG text, on logarithmic axes, with the diagonal and what is within a tenth of it.

Pure: numbers in, markup out. Coloured by the style sheet of the pages.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from service.units import unit_of

SIZE = 460
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 20, 52
BAND = 0.10
_STEPS = (1, 2, 5)
_CLASSES = {"float": "tried", "integer": "front", "mixed": "uniform"}


@dataclass(frozen=True, slots=True)
class Comparison:
    """One network; values in base units, `numbers` is what it computes in."""

    predicted: float
    measured: float
    numbers: str


@dataclass(frozen=True, slots=True)
class _Range:
    low: float
    high: float

    def share(self, value: float) -> float:
        inside = min(max(value, self.low), self.high)
        return math.log(inside / self.low) / math.log(self.high / self.low)

    def x(self, value: float) -> float:
        return LEFT + self.share(value) * (SIZE - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return SIZE - BOTTOM - self.share(value) * (SIZE - TOP - BOTTOM)


def render_comparison(points: Sequence[Comparison], metric: str) -> str:
    """SVG text, or an empty string when there is nothing to compare."""
    if not points:
        return ""
    values = [value for point in points for value in (point.predicted, point.measured)]
    shown = _Range(min(values) / 1.15, max(values) * 1.15)
    heading = unit_of(metric)
    parts = [
        *_frame(shown, metric),
        *(_line(shown, factor) for factor in (1 - BAND, 1.0, 1 + BAND)),
        *(_point(shown, point, metric) for point in points),
        *_legend({point.numbers for point in points}),
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIZE} {SIZE}" class="plot square" role="img">'
    return f"{head}<title>Predicted against measured {escape(heading.title)}</title>{''.join(parts)}</svg>"


def _frame(shown: _Range, metric: str) -> list[str]:
    bottom, right = SIZE - BOTTOM, SIZE - RIGHT
    parts = [f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{right}"/>']
    for value in round_values(shown.low, shown.high):
        text = f"{value * unit_of(metric).factor:g}"
        x, y = shown.x(value), shown.y(value)
        parts.append(f'<path class="grid" d="M{x:.1f} {TOP}V{bottom}M{LEFT} {y:.1f}H{right}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{text}</text>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    heading, middle = escape(unit_of(metric).heading), SIZE / 2
    parts.append(f'<text class="name" x="{middle}" y="{SIZE - 10}" text-anchor="middle">measured {heading}</text>')
    turn = f"rotate(-90 16 {middle})"
    parts.append(
        f'<text class="name" x="16" y="{middle}" text-anchor="middle" transform="{turn}">predicted {heading}</text>'
    )
    return parts


def round_values(low: float, high: float) -> list[float]:
    """1, 2 or 5 times a power of ten, within [low, high]."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [step * 10.0**power for power in powers for step in _STEPS if low <= step * 10.0**power <= high]


def _line(shown: _Range, factor: float) -> str:
    """Where predictions are so many times what was measured."""
    start, end = max(shown.low, shown.low / factor), min(shown.high, shown.high / factor)
    kind = "axis" if factor == 1.0 else "limit"
    path = f"M{shown.x(start):.1f} {shown.y(start * factor):.1f}L{shown.x(end):.1f} {shown.y(end * factor):.1f}"
    return f'<path class="{kind}" d="{path}"/>'


def _point(shown: _Range, point: Comparison, metric: str) -> str:
    unit = unit_of(metric)
    told = f"predicted {unit.show(point.predicted)}, measured {unit.show(point.measured)} {unit.symbol}"
    circle = f'<circle cx="{shown.x(point.measured):.1f}" cy="{shown.y(point.predicted):.1f}" r="3"/>'
    return f'<g class="point {_class_of(point.numbers)}"><title>{escape(told)}</title>{circle}</g>'


def _class_of(numbers: str) -> str:
    return _CLASSES.get(numbers, "infeasible")


def _legend(present: set[str]) -> list[str]:
    parts = []
    for row, numbers in enumerate(sorted(present)):
        y = TOP + 14 + 18 * row
        parts.append(f'<g class="point {_class_of(numbers)}"><circle cx="{LEFT + 16}" cy="{y}" r="3"/></g>')
        parts.append(f'<text class="tick" x="{LEFT + 28}" y="{y + 4}">{escape(numbers)}</text>')
    return parts
