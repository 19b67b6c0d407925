"""The picture of curves: well-formed, everything within its panel, and nothing that a logarithm has no place for."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.web.curves import HEIGHT, WIDTH, Panel, Series, render_curves

SVG = "{http://www.w3.org/2000/svg}"
PAIRS = st.lists(st.tuples(st.floats(1e-9, 1e9), st.floats(1e-9, 1e9)), min_size=1, max_size=6)


@given(PAIRS, PAIRS, st.integers(1, 5))
def test_every_mark_is_in_its_panel(points, line, count):
    panels = [Panel(f"<{number}>", "G & g", "µs", [Series("a < b", points, line)]) for number in range(count)]
    root = ElementTree.fromstring(render_curves(panels))
    groups = root.findall(f"{SVG}g")
    assert len(groups) == count
    for group in groups:
        marks = group.findall(f"{SVG}circle")
        assert len(marks) == len(points)
        assert all(0 <= float(mark.get("cx")) <= WIDTH and 0 <= float(mark.get("cy")) <= HEIGHT for mark in marks)
        assert group.find(f"{SVG}text").text.startswith("<")
    places = [tuple(map(int, re.findall(r"\d+", group.get("transform")))) for group in groups]
    assert places == [(number % 2 * WIDTH, number // 2 * HEIGHT) for number in range(count)]


def test_factors_are_distances():
    root = ElementTree.fromstring(render_curves([Panel("t", "x", "y", [Series("s", [(1, 1), (2, 10), (4, 100)])])]))
    marks = [(float(mark.get("cx")), float(mark.get("cy"))) for mark in root.iter(f"{SVG}circle")]
    assert marks[1][0] - marks[0][0] == pytest.approx(marks[2][0] - marks[1][0], abs=0.2)
    assert marks[0][1] - marks[1][1] == pytest.approx(marks[1][1] - marks[2][1], abs=0.2)
    ticks = [text.text for text in root.iter(f"{SVG}text")]
    assert {"1", "2", "4", "10", "50", "100"} <= set(ticks)


@pytest.mark.parametrize(
    "panels",
    [
        [],
        [Panel("t", "x", "y", [])],
        [Panel("t", "x", "y", [Series("s", [])])],
        [Panel("t", "x", "y", [Series("s", [(0.0, 1.0)])])],
        [Panel("t", "x", "y", [Series("s", [(1.0, 1.0)], [(1.0, float("nan"))])])],
    ],
)
def test_what_cannot_be_drawn_is_refused(panels):
    with pytest.raises(ValueError, match=r"needs at least one value|above 0"):
        render_curves(panels)
