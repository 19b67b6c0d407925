"""Curves over a parameter as SVG text, for documents: marks for what was measured, lines for what a model says.

Pure: values in, markup out. Both axes are logarithmic: what is drawn goes by factors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 380, 270
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 30, 44
COLOURS = ("#0f766e", "#b45309", "#1d4ed8", "#b91c1c")
MARGIN = 0.06  # of the range, so that no mark sits on the frame


@dataclass(frozen=True, slots=True)
class Series:
    """Values over the parameter; all above 0.

    Attributes:
        points: (x, y) of what was measured, drawn as marks.
        line: (x, y) of the model, joined in the order given.
    """

    label: str
    points: Sequence[tuple[float, float]]
    line: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture of several; `x` and `y` name its axes."""

    title: str
    x: str
    y: str
    series: Sequence[Series]


@dataclass(frozen=True, slots=True)
class _Scale:
    """Maps values to pixels by their logarithm."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return self.start + share * (self.end - self.start)


def render_curves(panels: Sequence[Panel], columns: int = 2) -> str:
    """The panels row by row, as one SVG with its own colours.

    Raises:
        ValueError: there is nothing to draw, or a value is not a finite number above 0.
    """
    if not panels or not all(_values(panel) for panel in panels):
        raise ValueError("every panel needs at least one value")
    if not all(math.isfinite(value) and value > 0 for panel in panels for pair in _values(panel) for value in pair):
        raise ValueError("a logarithmic axis takes finite numbers above 0")
    columns = min(columns, len(panels))
    width, height = columns * WIDTH, -(-len(panels) // columns) * HEIGHT
    parts = [
        f'<g transform="translate({number % columns * WIDTH} {number // columns * HEIGHT})">{_drawn(panel)}</g>'
        for number, panel in enumerate(panels)
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
    return f"{head}<style>{_STYLE}</style>{''.join(parts)}</svg>"


def _values(panel: Panel) -> list[tuple[float, float]]:
    return [pair for one in panel.series for pair in (*one.points, *one.line)]


def _drawn(panel: Panel) -> str:
    values = _values(panel)
    x = _scale([value for value, _ in values], LEFT, WIDTH - RIGHT)
    y = _scale([value for _, value in values], HEIGHT - BOTTOM, TOP)
    parts = [*_frame(panel, x, y)]
    for number, one in enumerate(panel.series):
        colour = COLOURS[number % len(COLOURS)]
        if one.line:
            path = "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in one.line)
            parts.append(f'<path class="line" stroke="{colour}" d="M{path}"/>')
        parts += [f'<circle fill="{colour}" cx="{x(a):.1f}" cy="{y(b):.1f}" r="3.2"/>' for a, b in one.points]
        place = f'x="{LEFT + 10}" y="{TOP + 14 + 15 * number}"'
        parts.append(f'<text class="tick" {place} fill="{colour}">{escape(one.label)}</text>')
    return "".join(parts)


def _scale(values: Sequence[float], start: float, end: float) -> _Scale:
    low, high = min(values), max(values)
    pad = (high / low) ** MARGIN if high > low else 2.0
    return _Scale(low / pad, high * pad, start, end)


def _frame(panel: Panel, x: _Scale, y: _Scale) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    middle = (TOP + bottom) / 2
    parts = [
        f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{right}"/>',
        f'<text class="name" x="{LEFT}" y="{TOP - 10}">{escape(panel.title)}</text>',
        f'<text class="tick" x="{(LEFT + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(panel.x)}</text>',
        f'<text class="tick" x="12" y="{middle}" text-anchor="middle" transform="rotate(-90 12 {middle})">'
        f"{escape(panel.y)}</text>",
    ]
    for tick in _powers_of_two(x):
        parts.append(f'<path class="grid" d="M{x(tick):.1f} {TOP}V{bottom}"/>')
        parts.append(f'<text class="tick" x="{x(tick):.1f}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>')
    for tick in _one_two_five(y):
        parts.append(f'<path class="grid" d="M{LEFT} {y(tick):.1f}H{right}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    return parts


def _powers_of_two(scale: _Scale) -> list[float]:
    first, last = math.ceil(math.log2(scale.low)), math.floor(math.log2(scale.high))
    return [2.0**power for power in range(first, last + 1)]


def _one_two_five(scale: _Scale) -> list[float]:
    powers = range(math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high)) + 1)
    ticks = [float(f"{step}e{power}") for power in powers for step in (1, 2, 5)]
    return [tick for tick in ticks if scale.low <= tick <= scale.high]


_STYLE = """
svg{background:#fff;font-family:system-ui,sans-serif}.tick{font-size:11px}.name{font-size:13px;fill:#1f2937}
.tick:not([fill]){fill:#4b5563}.axis{stroke:#6b7280;fill:none}.grid{stroke:#e5e7eb}.line{fill:none;stroke-width:1.6}
"""
