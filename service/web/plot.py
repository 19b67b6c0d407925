"""The front plot as SVG text: tried designs, uniform baseline, fronts, limits and confirmed points.

Pure: points in, markup out. In a page it is coloured by the style sheet; `standalone` adds the colours
that a picture in a document needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from html import escape

from search_spaces.objectives import Direction
from service.units import unit_of

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 20, 52
MARGIN = 0.05  # of the data's range, so that no mark sits on the frame
OUTLIER_RANGES = 3.0  # interquartile ranges beyond which a mark is drawn at the frame instead of at its place
TICKS = 6


EMPTY = '<svg xmlns="http://www.w3.org/2000/svg"/>'


class Mark(StrEnum):
    """What a point stands for; also its CSS class. Later ones are drawn over earlier ones."""

    INFEASIBLE = "infeasible"
    STOPPED = "stopped"
    TRIED = "tried"
    UNIFORM = "uniform"
    FRONT = "front"
    CONFIRMED_UNIFORM = "confirmed-uniform"
    CONFIRMED = "confirmed"


# What a search is about stands where it is, however far from the rest.
NEVER_MOVED = frozenset({Mark.FRONT, Mark.CONFIRMED, Mark.CONFIRMED_UNIFORM})

LEGEND = {
    Mark.TRIED: "tried",
    Mark.FRONT: "front",
    Mark.UNIFORM: "uniform baseline",
    Mark.INFEASIBLE: "misses a limit",
    Mark.STOPPED: "stopped early",
    Mark.CONFIRMED: "found, on confirm",
    Mark.CONFIRMED_UNIFORM: "uniform, on confirm",
}


@dataclass(frozen=True, slots=True)
class Point:
    """A design in the plane, in base units.

    Attributes:
        label: the tooltip.
        on_front: whether the front's line goes through it; a uniform design can be on the front too.
        low, high: the 95% interval of `y`, where known.
    """

    x: float
    y: float
    mark: Mark
    label: str
    on_front: bool = False
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Axis:
    """A metric along one side; `limits` are drawn as lines across."""

    metric: str
    direction: Direction
    limits: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class _Scale:
    """Maps base units to pixels; values outside of the shown range are put at its end."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def render_plot(points: Sequence[Point], x_axis: Axis, y_axis: Axis, *, standalone: bool = False) -> str:
    """SVG text, or an empty string when there is nothing to show yet."""
    if not points:
        return ""
    kept = [point for point in points if point.on_front or point.mark in NEVER_MOVED]
    x = _scale([point.x for point in points], [point.x for point in kept], x_axis.limits, LEFT, WIDTH - RIGHT)
    y = _scale(_heights(points), _heights(kept), y_axis.limits, HEIGHT - BOTTOM, TOP)
    parts = [
        *_frame(x, y, x_axis, y_axis),
        *_limit_lines(x, y, x_axis, y_axis),
        _line("uniform", [point for point in points if point.mark is Mark.UNIFORM], x, y, x_axis, y_axis),
        _line("front", [point for point in points if point.on_front], x, y, x_axis, y_axis),
        *(_drawn(point, x, y) for point in sorted(points, key=lambda point: list(Mark).index(point.mark))),
        *_legend(points),
    ]
    title = f"{unit_of(y_axis.metric).title} against {unit_of(x_axis.metric).title}"
    size = f'width="{WIDTH}" height="{HEIGHT}" ' if standalone else ""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}viewBox="0 0 {WIDTH} {HEIGHT}" class="plot" role="img">'
    style = f"<style>{_STANDALONE_STYLE}</style>" if standalone else ""
    return f"{head}<title>{escape(title)}</title>{style}{''.join(parts)}</svg>"


def _heights(points: Iterable[Point]) -> list[float]:
    """Where something is drawn: the points and the ends of their intervals."""
    return [value for point in points for value in (point.y, point.low, point.high) if value is not None]


def _scale(values: Sequence[float], kept: Sequence[float], limits: Iterable[float], start: float, end: float) -> _Scale:
    """Show what is usual among `values`, and all of `kept`."""
    low, high = _usual_range(values)
    low, high = min([low, *kept]), max([high, *kept])
    near = [limit for limit in limits if low - (high - low) <= limit <= high + (high - low)]
    low, high = min([low, *near]), max([high, *near])
    pad = MARGIN * (high - low) or 0.05 * abs(high) or 1.0
    return _Scale(low - pad, high + pad, start, end)


def _usual_range(values: Sequence[float]) -> tuple[float, float]:
    """The range of what is no outlier: one useless design must not squeeze all others into a corner."""
    ordered = sorted(values)
    lower, upper = ordered[len(ordered) // 4], ordered[(3 * len(ordered)) // 4]
    reach = OUTLIER_RANGES * (upper - lower)
    usual = [value for value in ordered if lower - reach <= value <= upper + reach] if reach else ordered
    return usual[0], usual[-1]


def nice_ticks(low: float, high: float, count: int = TICKS) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten apart) within [low, high]."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def _tick_labels(scale: _Scale, metric: str) -> list[tuple[float, str]]:
    """(pixel, text) in the metric's shown unit, with as many digits as the step between ticks needs."""
    factor = unit_of(metric).factor
    ticks = nice_ticks(scale.low * factor, scale.high * factor)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return [(scale(tick / factor), f"{tick:,.{digits}f}") for tick in ticks]


def _frame(x: _Scale, y: _Scale, x_axis: Axis, y_axis: Axis) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{right}"/>']
    for pixel, text in _tick_labels(x, x_axis.metric):
        parts.append(f'<path class="grid" d="M{pixel:.1f} {TOP}V{bottom}"/>')
        parts.append(f'<text class="tick" x="{pixel:.1f}" y="{bottom + 18}" text-anchor="middle">{text}</text>')
    for pixel, text in _tick_labels(y, y_axis.metric):
        parts.append(f'<path class="grid" d="M{LEFT} {pixel:.1f}H{right}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{pixel + 4:.1f}" text-anchor="end">{text}</text>')
    across, up = escape(unit_of(x_axis.metric).heading), escape(unit_of(y_axis.metric).heading)
    middle_x, middle_y = (LEFT + right) / 2, (TOP + bottom) / 2
    parts.append(f'<text class="name" x="{middle_x}" y="{HEIGHT - 10}" text-anchor="middle">{across}</text>')
    turn = f"rotate(-90 16 {middle_y})"
    parts.append(f'<text class="name" x="16" y="{middle_y}" text-anchor="middle" transform="{turn}">{up}</text>')
    return parts


def _limit_lines(x: _Scale, y: _Scale, x_axis: Axis, y_axis: Axis) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    across = [
        f'<path class="limit" d="M{x(limit):.1f} {TOP}V{bottom}"/>'
        for limit in x_axis.limits
        if x.low <= limit <= x.high
    ]
    up = [
        f'<path class="limit" d="M{LEFT} {y(limit):.1f}H{right}"/>'
        for limit in y_axis.limits
        if y.low <= limit <= y.high
    ]
    return across + up


def _line(kind: str, points: Sequence[Point], x: _Scale, y: _Scale, x_axis: Axis, y_axis: Axis) -> str:
    """A staircase around what the points dominate."""
    steps = staircase([(point.x, point.y) for point in points], x_axis.direction, y_axis.direction)
    if len(steps) < 2:
        return ""
    path = "L".join(f"{x(px):.1f} {y(py):.1f}" for px, py in steps)
    return f'<path class="line {kind}" d="M{path}"/>'


def staircase(corners: Iterable[tuple[float, float]], x: Direction, y: Direction) -> list[tuple[float, float]]:
    """The boundary through the non-dominated ones of `corners`, from left to right, with its inner corners."""
    x_sign = 1.0 if x is Direction.MINIMIZE else -1.0
    y_sign = 1.0 if y is Direction.MINIMIZE else -1.0
    best = math.inf
    kept: list[tuple[float, float]] = []
    for px, py in sorted(corners, key=lambda corner: (x_sign * corner[0], y_sign * corner[1])):
        if y_sign * py < best:
            best = y_sign * py
            if kept:
                kept.append((px, kept[-1][1]))
            kept.append((px, py))
    return kept


def _drawn(point: Point, x: _Scale, y: _Scale) -> str:
    px, py = x(point.x), y(point.y)
    whisker = ""
    if point.low is not None and point.high is not None:
        whisker = f'<path class="interval" d="M{px:.1f} {y(point.low):.1f}V{y(point.high):.1f}"/>'
    shape = _shape(point.mark, px, py)
    return f'<g class="point {point.mark}"><title>{escape(point.label)}</title>{whisker}{shape}</g>'


def _shape(mark: Mark, px: float, py: float) -> str:
    if mark in (Mark.CONFIRMED, Mark.CONFIRMED_UNIFORM):
        return f'<path d="M{px:.1f} {py - 6:.1f}l6 6l-6 6l-6 -6z"/>'
    if mark is Mark.UNIFORM:
        return f'<rect x="{px - 3.5:.1f}" y="{py - 3.5:.1f}" width="7" height="7"/>'
    radius = 4.5 if mark is Mark.FRONT else 3
    return f'<circle cx="{px:.1f}" cy="{py:.1f}" r="{radius}"/>'


def _legend(points: Sequence[Point]) -> list[str]:
    present = [mark for mark in LEGEND if any(point.mark is mark for point in points)]
    left, top = WIDTH - RIGHT - 150, HEIGHT - BOTTOM - 14 - 18 * (len(present) - 1)
    parts = [f'<rect class="legend" x="{left - 14}" y="{top - 14}" width="160" height="{18 * len(present) + 8}"/>']
    for row, mark in enumerate(present):
        y = top + 18 * row
        parts.append(f'<g class="point {mark}">{_shape(mark, left, y)}</g>')
        parts.append(f'<text class="tick" x="{left + 14}" y="{y + 4}">{LEGEND[mark]}</text>')
    return parts


_STANDALONE_STYLE = """
svg{background:#fff;font-family:system-ui,sans-serif}
text{fill:#1f2937;font-size:12px}.name{font-size:13px}
.axis{stroke:#6b7280;fill:none}.grid{stroke:#e5e7eb}.limit{stroke:#b91c1c;stroke-dasharray:6 4}
.legend{fill:#fff;fill-opacity:.85;stroke:#e5e7eb}
.line{fill:none;stroke-width:1.6}.line.front{stroke:#0f766e}.line.uniform{stroke:#b45309;stroke-dasharray:4 3}
.tried{fill:#93c5bd}.front{fill:#0f766e}.uniform{fill:#d97706}.infeasible{fill:none;stroke:#9ca3af}
.stopped{fill:#93c5bd;fill-opacity:.35}
.confirmed{fill:#115e59;stroke:#fff}.confirmed-uniform{fill:#92400e;stroke:#fff}
.confirmed .interval{stroke:#115e59}.confirmed-uniform .interval{stroke:#92400e}
path.line{fill:none}
"""
