"""Curves as SVG text that a document can show: marks with their spread, and lines.

Pure: values in, markup out. A picture is of one panel or of several beside each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from service.web.plot import nice_ticks

HEIGHT, PLOT_WIDTH = 340, 400
LEFT, TOP, BOTTOM = 62, 34, 50
CHARACTER_WIDTH = 6.6  # of the font, at most, so that names have room
MARGIN = 0.06  # of the range, so that no mark sits on the frame
MOST_STEPS = 8  # that are all named on the axis
COLOURS = (
    "#0f766e",
    "#b45309",
    "#1d4ed8",
    "#be185d",
    "#6d28d9",
    "#4d7c0f",
    "#475569",
    "#111827",
    "#e11d48",
    "#0891b2",
    "#a16207",
    "#9333ea",
    "#f97316",
)
_STYLE = (
    "svg{background:#fff;font-family:system-ui,sans-serif}text{fill:#1f2937;font-size:12px}"
    ".title{font-size:13px;font-weight:600}.axis{stroke:#6b7280;fill:none}.grid{stroke:#e5e7eb}"
    ".curve{fill:none;stroke-width:1.8}"
)


@dataclass(frozen=True, slots=True)
class Point:
    """A mark; its spread, from `low` to `high`, is drawn where there is one."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Curve:
    """What has one colour.

    Attributes:
        points: in the order of x.
        line: (x, y) that the line goes through; None: through the points.
    """

    name: str
    points: Sequence[Point]
    line: Sequence[tuple[float, float]] | None = None

    def path(self) -> Sequence[tuple[float, float]]:
        return [(point.x, point.y) for point in self.points] if self.line is None else self.line


@dataclass(frozen=True, slots=True)
class Panel:
    """One pair of axes.

    Attributes:
        logarithmic: both axes: what is drawn goes by factors. All values are above 0 then.
    """

    title: str
    x_name: str
    y_name: str
    curves: Sequence[Curve]
    logarithmic: bool = False


@dataclass(frozen=True, slots=True)
class _Scale:
    """From values to pixels; `of` is the logarithm, or the value itself."""

    low: float
    high: float
    start: float
    end: float
    of: Callable[[float], float]

    def __call__(self, value: float) -> float:
        share = (self.of(value) - self.of(self.low)) / (self.of(self.high) - self.of(self.low))
        return self.start + share * (self.end - self.start)


def render_panels(panels: Sequence[Panel], columns: int = 1) -> str:
    """The panels row by row; colours go by the order of the curves.

    Raises:
        ValueError: there is nothing to draw, or a value is not a finite number, or a logarithmic axis has no place for
            it.
    """
    if not panels or not all(_places(panel) for panel in panels):
        raise ValueError("every panel needs at least one value")
    for panel in panels:
        _check(panel)
    panel_width = LEFT + PLOT_WIDTH + max(_legend_width(panel) for panel in panels)
    columns = min(columns, len(panels))
    width, height = columns * panel_width, -(-len(panels) // columns) * HEIGHT
    parts = [
        f'<g transform="translate({number % columns * panel_width} {number // columns * HEIGHT})">{_drawn(panel)}</g>'
        for number, panel in enumerate(panels)
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
    title = escape("; ".join(panel.title for panel in panels))
    return f"{head}<title>{title}</title><style>{_STYLE}</style>{''.join(parts)}</svg>\n"


def _places(panel: Panel) -> list[tuple[float, float]]:
    """All that must be on the axes."""
    spread = [
        (point.x, y) for curve in panel.curves for point in curve.points for y in (point.y, point.low, point.high)
    ]
    return [*spread, *(place for curve in panel.curves for place in curve.path())]


def _check(panel: Panel) -> None:
    values = [value for place in _places(panel) for value in place]
    if not all(map(math.isfinite, values)):
        raise ValueError("only finite numbers can be drawn")
    if panel.logarithmic and min(values) <= 0:
        raise ValueError("a logarithmic axis takes numbers above 0")


def _legend_width(panel: Panel) -> int:
    return 50 + math.ceil(CHARACTER_WIDTH * max(len(curve.name) for curve in panel.curves))


def _drawn(panel: Panel) -> str:
    places = _places(panel)
    x = _scale([place[0] for place in places], LEFT, LEFT + PLOT_WIDTH, panel.logarithmic)
    y = _scale([place[1] for place in places], HEIGHT - BOTTOM, TOP, panel.logarithmic)
    parts = [*_frame(panel, x, y)]
    for number, curve in enumerate(panel.curves):
        colour = COLOURS[number % len(COLOURS)]
        parts += [_curve(curve, colour, x, y), _named(curve.name, colour, number)]
    return "".join(parts)


def _scale(values: Sequence[float], start: float, end: float, logarithmic: bool) -> _Scale:
    low, high = min(values), max(values)
    if logarithmic:
        factor = (high / low) ** MARGIN if high > low else 2.0
        return _Scale(low / factor, high * factor, start, end, math.log)
    pad = MARGIN * (high - low) or 0.05 * abs(high) or 1.0
    return _Scale(low - pad, high + pad, start, end, float)


def _frame(panel: Panel, x: _Scale, y: _Scale) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, LEFT + PLOT_WIDTH
    middle = (TOP + bottom) / 2
    parts = [
        f'<text class="title" x="{LEFT}" y="20">{escape(panel.title)}</text>',
        f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{right}"/>',
        f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(panel.x_name)}</text>',
        f'<text x="16" y="{middle}" text-anchor="middle" transform="rotate(-90 16 {middle})">'
        f"{escape(panel.y_name)}</text>",
    ]
    for value in _x_ticks(panel, x):
        parts.append(f'<path class="grid" d="M{x(value):.1f} {TOP}V{bottom}"/>')
        parts.append(f'<text x="{x(value):.1f}" y="{bottom + 18}" text-anchor="middle">{value:g}</text>')
    for value in _one_two_five(y) if panel.logarithmic else nice_ticks(y.low, y.high):
        parts.append(f'<path class="grid" d="M{LEFT} {y(value):.1f}H{right}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    return parts


def _x_ticks(panel: Panel, x: _Scale) -> Sequence[float]:
    """Every step of a few whole ones, powers of two on a logarithmic axis."""
    if panel.logarithmic:
        first, last = math.ceil(math.log2(x.low)), math.floor(math.log2(x.high))
        return [2.0**power for power in range(first, last + 1)]
    steps = sorted({place[0] for place in _places(panel)})
    are_few = len(steps) <= MOST_STEPS and all(step == int(step) for step in steps)
    return steps if are_few else nice_ticks(x.low, x.high)


def _one_two_five(scale: _Scale) -> list[float]:
    powers = range(math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high)) + 1)
    ticks = [float(f"{step}e{power}") for power in powers for step in (1, 2, 5)]
    return [tick for tick in ticks if scale.low <= tick <= scale.high]


def _curve(curve: Curve, colour: str, x: _Scale, y: _Scale) -> str:
    path = "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in curve.path())
    spread = "".join(
        f"M{x(point.x):.1f} {y(point.low):.1f}V{y(point.high):.1f}" for point in curve.points if point.high > point.low
    )
    marks = "".join(
        f'<circle cx="{x(point.x):.1f}" cy="{y(point.y):.1f}" r="3" fill="{colour}">'
        f"<title>{escape(curve.name)}: {point.x:g}, {point.y:.4g}</title></circle>"
        for point in curve.points
    )
    line = f'<path class="curve" stroke="{colour}" d="M{path}"/>' if path else ""
    return line + (f'<path stroke="{colour}" stroke-opacity=".5" d="{spread}"/>' if spread else "") + marks


def _named(name: str, colour: str, row: int) -> str:
    left, top = LEFT + PLOT_WIDTH + 14, TOP + 10 + 18 * row
    mark = f'<path stroke="{colour}" stroke-width="2.5" d="M{left} {top - 4}h16"/>'
    return f'{mark}<text x="{left + 22}" y="{top}">{escape(name)}</text>'
