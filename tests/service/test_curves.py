"""The report's pictures: well-formed, everything within its panel, and nothing that an axis has no place for."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.web.curves import HEIGHT, LEFT, PLOT_WIDTH, Curve, Panel, Point, render_panels

SVG = "{http://www.w3.org/2000/svg}"
PAIRS = st.lists(st.tuples(st.floats(1e-9, 1e9), st.floats(1e-9, 1e9)), min_size=1, max_size=6)


def marks_of(pairs: list[tuple[float, float]]) -> list[Point]:
    return [Point(x, y, y, y) for x, y in pairs]


@given(PAIRS, PAIRS, st.integers(1, 5), st.booleans())
def test_every_mark_is_in_its_panel(
    pairs: list[tuple[float, float]], line: list[tuple[float, float]], count: int, logarithmic: bool
):
    curve = Curve("a < b", marks_of(pairs), line)
    panels = [Panel(f"<{number}>", "G & g", "µs", [curve], logarithmic) for number in range(count)]
    groups = ElementTree.fromstring(render_panels(panels, columns=2)).findall(f"{SVG}g")
    assert len(groups) == count
    for group in groups:
        marks = group.findall(f"{SVG}circle")
        assert len(marks) == len(pairs)
        assert all(LEFT <= float(mark.get("cx", "")) <= LEFT + PLOT_WIDTH for mark in marks)
        assert all(0 <= float(mark.get("cy", "")) <= HEIGHT for mark in marks)
    places = [tuple(map(int, re.findall(r"\d+", group.get("transform", "")))) for group in groups]
    assert len(set(places)) == count
    assert [y for _, y in places] == [number // 2 * HEIGHT for number in range(count)]


def test_factors_are_distances_on_a_logarithmic_axis():
    curve = Curve("s", marks_of([(1, 1), (2, 10), (4, 100)]))
    root = ElementTree.fromstring(render_panels([Panel("t", "x", "y", [curve], logarithmic=True)]))
    marks = [(float(mark.get("cx", "")), float(mark.get("cy", ""))) for mark in root.iter(f"{SVG}circle")]
    assert marks[1][0] - marks[0][0] == pytest.approx(marks[2][0] - marks[1][0], abs=0.2)
    assert marks[0][1] - marks[1][1] == pytest.approx(marks[1][1] - marks[2][1], abs=0.2)
    assert {"1", "2", "4", "10", "50", "100"} <= {text.text for text in root.iter(f"{SVG}text")}


def test_a_spread_is_drawn_from_its_lowest_to_its_highest():
    curve = Curve("s", [Point(1, 2, 0, 3), Point(2, 1, 1, 1)])
    root = ElementTree.fromstring(render_panels([Panel("t", "x", "y", [curve])]))
    (first, second) = root.iter(f"{SVG}circle")
    (spread,) = [path.get("d", "") for path in root.iter(f"{SVG}path") if path.get("stroke-opacity")]
    x, lowest, highest = map(float, re.findall(r"[\d.]+", spread))
    per_unit = float(second.get("cy", "")) - float(first.get("cy", ""))
    assert x == float(first.get("cx", ""))
    assert lowest - float(first.get("cy", "")) == pytest.approx(2 * per_unit, abs=0.2)
    assert float(first.get("cy", "")) - highest == pytest.approx(per_unit, abs=0.2)


@pytest.mark.parametrize(
    ("panels", "told"),
    [
        ([], "at least one value"),
        ([Panel("t", "x", "y", [])], "at least one value"),
        ([Panel("t", "x", "y", [Curve("s", [])])], "at least one value"),
        ([Panel("t", "x", "y", [Curve("s", marks_of([(0.0, 1.0)]))], logarithmic=True)], "above 0"),
        ([Panel("t", "x", "y", [Curve("s", marks_of([(1.0, float("nan"))]))])], "finite"),
    ],
)
def test_what_cannot_be_drawn_is_refused(panels: list[Panel], told: str):
    with pytest.raises(ValueError, match=told):
        render_panels(panels)
