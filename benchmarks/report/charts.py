"""Curves with their spread over seeds, as SVG text that a document can show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from service.web.plot import nice_ticks

WIDTH, HEIGHT = 700, 380
LEFT, RIGHT, TOP, BOTTOM = 62, 220, 34, 50
COLOURS = ("#0f766e", "#b45309", "#1d4ed8", "#be185d", "#6d28d9", "#4d7c0f", "#475569", "#0e7490", "#a16207")
_STYLE = (
    "svg{background:#fff;font-family:system-ui,sans-serif}text{fill:#1f2937;font-size:12px}"
    ".title{font-size:13px;font-weight:600}.axis{stroke:#6b7280;fill:none}.grid{stroke:#e5e7eb}.curve{fill:none;stroke-width:1.8}"
)


@dataclass(frozen=True, slots=True)
class Curve:
    """Points (x, y, lowest y, highest y), in the order of x."""

    name: str
    points: tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True, slots=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def render_chart(title: str, x_name: str, y_name: str, curves: Sequence[Curve]) -> str:
    """SVG text of curves with whiskers; colours go by the order of the curves."""
    points = [point for curve in curves for point in curve.points]
    x = _Scale(*_range([point[0] for point in points]), LEFT, WIDTH - RIGHT)
    y = _Scale(*_range([value for point in points for value in point[1:]]), HEIGHT - BOTTOM, TOP)
    parts = [
        f'<text class="title" x="{LEFT}" y="20">{escape(title)}</text>',
        *_frame(x, y, x_name, y_name, sorted({point[0] for point in points})),
        *(_drawn(curve, COLOURS[number % len(COLOURS)], x, y) for number, curve in enumerate(curves)),
        *(_named(curve.name, COLOURS[number % len(COLOURS)], number) for number, curve in enumerate(curves)),
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}">'
    return f"{head}<title>{escape(title)}</title><style>{_STYLE}</style>{''.join(parts)}</svg>\n"


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    pad = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - pad, high + pad


def _frame(x: _Scale, y: _Scale, x_name: str, y_name: str, places: Sequence[float]) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{right}"/>']
    are_steps = len(places) <= 8 and all(place == int(place) for place in places)
    shown = places if are_steps else nice_ticks(x.low, x.high)
    for value in shown:
        parts.append(f'<text x="{x(value):.1f}" y="{bottom + 18}" text-anchor="middle">{value:g}</text>')
    for value in nice_ticks(y.low, y.high):
        at = y(value)
        parts.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{right}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{value:g}</text>')
    middle = (TOP + bottom) / 2
    parts.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x_name)}</text>')
    turn = f'transform="rotate(-90 16 {middle})"'
    parts.append(f'<text x="16" y="{middle}" text-anchor="middle" {turn}>{escape(y_name)}</text>')
    return parts


def _drawn(curve: Curve, colour: str, x: _Scale, y: _Scale) -> str:
    path = "L".join(f"{x(px):.1f} {y(py):.1f}" for px, py, *_ in curve.points)
    whiskers = "".join(f"M{x(px):.1f} {y(low):.1f}V{y(high):.1f}" for px, _, low, high in curve.points if high > low)
    dots = "".join(
        f'<circle cx="{x(px):.1f}" cy="{y(py):.1f}" r="3" fill="{colour}">'
        f"<title>{escape(curve.name)}: {px:g}, {py:.4g}</title></circle>"
        for px, py, *_ in curve.points
    )
    line = f'<path class="curve" stroke="{colour}" d="M{path}"/>'
    return f'{line}<path stroke="{colour}" stroke-opacity=".5" d="{whiskers}"/>{dots}' if whiskers else line + dots


def _named(name: str, colour: str, row: int) -> str:
    left, top = WIDTH - RIGHT + 16, TOP + 10 + 18 * row
    mark = f'<path stroke="{colour}" stroke-width="2.5" d="M{left} {top - 4}h16"/>'
    return f'{mark}<text x="{left + 22}" y="{top}">{escape(name)}</text>'
