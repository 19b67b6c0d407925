"""The front plot: what is drawn where, and that nothing in a label becomes markup."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.objectives import Direction, Metric
from service.web.plot import HEIGHT, LEFT, TICKS, WIDTH, Axis, Mark, Point, nice_ticks, render_plot, staircase

LATENCY = Axis(Metric.LATENCY_S, Direction.MINIMIZE)
ACCURACY = Axis(Metric.ACCURACY, Direction.MAXIMIZE)
FINITE = st.floats(min_value=-1e6, max_value=1e6, allow_nan=False)


def circles(svg: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', svg)]


class TestStaircase:
    def test_fast_and_accurate_designs(self) -> None:
        corners = [(3.0, 0.9), (1.0, 0.7), (2.0, 0.6)]  # the last one is dominated by the second
        steps = staircase(corners, Direction.MINIMIZE, Direction.MAXIMIZE)
        assert steps == [(1.0, 0.7), (3.0, 0.7), (3.0, 0.9)]

    def test_both_minimised(self) -> None:
        assert staircase([(1.0, 5.0), (2.0, 3.0)], Direction.MINIMIZE, Direction.MINIMIZE) == [
            (1.0, 5.0),
            (2.0, 5.0),
            (2.0, 3.0),
        ]


@given(low=FINITE, span=st.floats(min_value=1e-3, max_value=1e6))
def test_ticks_are_round_few_and_inside(low: float, span: float) -> None:
    ticks = nice_ticks(low, low + span)
    assert 1 <= len(ticks) <= 2 * TICKS + 1
    assert all(low - 1e-6 * span <= tick <= low + span * (1 + 1e-6) for tick in ticks)


class TestRenderPlot:
    def test_nothing_to_show(self) -> None:
        assert render_plot([], LATENCY, ACCURACY) == ""

    def test_a_label_is_text(self) -> None:
        svg = render_plot([Point(1e-3, 0.9, Mark.FRONT, '<script>"&')], LATENCY, ACCURACY)
        assert "<script>" not in svg
        titles = [element.text for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}title")]
        assert '<script>"&' in titles

    def test_faster_is_left_and_more_accurate_is_up(self) -> None:
        points = [Point(1e-3, 0.9, Mark.TRIED, "slow and good"), Point(5e-4, 0.8, Mark.TRIED, "fast and bad")]
        (slow_x, good_y), (fast_x, bad_y) = circles(render_plot(points, LATENCY, ACCURACY))[:2]
        assert fast_x < slow_x
        assert good_y < bad_y

    def test_one_useless_design_does_not_squeeze_the_others(self) -> None:
        points = [Point(1e-3 * (1 + i / 20), 0.85 + i / 400, Mark.TRIED, "") for i in range(20)]
        heights = [y for _, y in circles(render_plot([*points, Point(1e-3, 0.1, Mark.TRIED, "")], LATENCY, ACCURACY))]
        assert max(heights[:20]) - min(heights[:20]) > 0.5 * HEIGHT
        assert all(0 < y < HEIGHT for y in heights)

    def test_the_front_stands_where_it_is_however_far(self) -> None:
        points = [Point(1e-3 * (1 + i / 20), 0.85 + i / 400, Mark.TRIED, "") for i in range(20)]
        fastest = [
            Point(1e-4, 0.8, Mark.FRONT, "", on_front=True),
            Point(5e-5, 0.81, Mark.FRONT, "", on_front=True),
        ]
        places = circles(render_plot([*points, *fastest], LATENCY, ACCURACY))
        assert LEFT < places[21][0] < places[20][0] < min(x for x, _ in places[:20])

    def test_a_near_limit_is_drawn_and_a_far_one_is_not(self) -> None:
        points = [Point(1e-3, 0.9, Mark.TRIED, ""), Point(2e-3, 0.8, Mark.TRIED, "")]
        near = Axis(Metric.LATENCY_S, Direction.MINIMIZE, (2.1e-3,))
        far = Axis(Metric.LATENCY_S, Direction.MINIMIZE, (1.0,))
        assert 'class="limit"' in render_plot(points, near, ACCURACY)
        assert 'class="limit"' not in render_plot(points, far, ACCURACY)

    def test_a_confirmed_point_has_its_interval(self) -> None:
        point = Point(1e-3, 0.9, Mark.CONFIRMED, "", low=0.89, high=0.91)
        assert 'class="interval"' in render_plot([point], LATENCY, ACCURACY)

    @pytest.mark.parametrize("value", [0.0, 1e-9, 12345.0])
    def test_one_point_or_equal_points(self, value: float) -> None:
        point = Point(value, value, Mark.TRIED, "")
        (place, *_) = circles(render_plot([point, point], LATENCY, ACCURACY))
        assert 0 < place[0] < WIDTH
        assert 0 < place[1] < HEIGHT

    def test_stopped_designs_are_paler_and_named(self) -> None:
        points = [Point(1e-3, 0.9, Mark.TRIED, ""), Point(2e-3, 0.8, Mark.STOPPED, "")]
        svg = render_plot(points, LATENCY, ACCURACY, standalone=True)
        assert svg.count('class="point stopped"') == 2  # the design and the legend
        assert "stopped early" in svg
        assert ".stopped{fill:#93c5bd;fill-opacity:.35}" in svg

    def test_axes_are_named_with_their_units(self) -> None:
        svg = render_plot([Point(1e-3, 0.9, Mark.TRIED, "")], LATENCY, ACCURACY)
        assert "latency (ms)" in svg
        assert "accuracy (%)" in svg

    def test_a_picture_for_a_document_brings_its_colours(self) -> None:
        point = Point(1e-3, 0.9, Mark.TRIED, "")
        assert "<style>" in render_plot([point], LATENCY, ACCURACY, standalone=True)
        assert "<style>" not in render_plot([point], LATENCY, ACCURACY)
