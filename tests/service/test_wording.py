"""Words and figures that people read: units, designs, and a verdict that claims no more than it knows."""

from __future__ import annotations

import pytest

from search_spaces.objectives import Metric
from search_spaces.parse import parse_spec
from service.units import UNITS, show_seconds, show_with_unit
from service.wording import (
    best_values,
    counted,
    describe_activity,
    describe_design,
    describe_end,
    describe_settings,
    plot_axes,
    report_figures,
    show_value,
    verdict,
)
from tests.service.builders import example_spec

SPEC = parse_spec(example_spec())


def values(accuracy: float, latency_s: float) -> dict[str, float]:
    return {"accuracy": accuracy, "latency_s": latency_s}


def test_every_metric_has_a_unit() -> None:
    assert set(UNITS) == set(Metric)


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        (Metric.ACCURACY, 0.90314, "90.31 %"),
        (Metric.LATENCY_S, 4.123e-4, "0.412 ms"),
        (Metric.SIZE_BYTES, 151_234.0, "151.2 kB"),
        (Metric.MACS, 12_345_678.0, "12.35 M"),
        (Metric.ENERGY_J, None, "-"),
    ],
)
def test_values_are_shown_in_their_unit(metric: Metric, value: float | None, text: str) -> None:
    assert show_with_unit(metric, value) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (185, "3 min 05 s")])
def test_durations(seconds: float, text: str) -> None:
    assert show_seconds(seconds) == text


def test_an_accuracy_is_shown_with_its_interval() -> None:
    known = {"accuracy": 0.9, "accuracy_low": 0.89, "accuracy_high": 0.91}
    assert show_value(Metric.ACCURACY, known) == "90.00 (89.00-91.00)"


def test_a_design_in_words() -> None:
    design = {"channels/a": 16, "channels/b": 48, "channels/c": 16, "precision/x": "w8a8"}
    assert describe_design(design) == "channels 2 x 16, 48; precision w8a8"
    methods = {"activation_codec/network": "exp_golomb", "importance/network": "l2", "groups/a": 2}
    assert describe_design(methods) == "activation codec exp golomb; number of groups 2; importance l2"
    assert describe_design({}) == "as the base"


@pytest.mark.parametrize(
    ("number", "text"),
    [(1, "1 epoch"), (1.0, "1 epoch"), (0.5, "0.5 epochs"), (0, "0 epochs"), (1_234_567, "1,234,567 epochs")],
)
def test_one_is_no_plural(number: float, text: str) -> None:
    assert counted(number, "epoch") == text


def test_settings_are_told_without_code() -> None:
    recipe = {
        "epochs": 2,
        "flip": False,
        "weight_decay": 5e-4,
        "schedule": "one_cycle",
        "regulariser": {"name": "soft_min_max", "weight": 0.01},
        "activation_l1": {"block_1.relu": 0.1},
    }
    assert describe_settings(recipe) == (
        "epochs 2, flip no, weight decay 0.0005, schedule one cycle, "
        "regulariser (name soft min max, weight 0.01), activation l1 (block_1.relu 0.1)"
    )


def test_axes_are_the_cost_across_and_the_gain_upwards() -> None:
    axes = plot_axes(SPEC.objectives)
    assert axes is not None
    assert (axes[0].metric, axes[1].metric) == (Metric.LATENCY_S, Metric.ACCURACY)
    assert plot_axes(SPEC.objectives[:1]) is None


def test_best_values_take_each_objective_by_itself() -> None:
    assert best_values(SPEC.objectives, [values(0.9, 2e-3), values(0.8, 1e-3)]) == (
        "accuracy 90.00 %, latency 1.000 ms"
    )
    assert best_values(SPEC.objectives, []) == ""


def test_an_end_is_told_once_and_in_a_sentence() -> None:
    spent = {"reason": "trials", "message": "the budget of 3 trials is spent"}
    assert describe_end(spent, None) == "the budget of 3 trials is spent"
    assert describe_end({"reason": "wall_time", "message": ""}, None) == "wall time"
    assert describe_end(None, None) == ""
    assert describe_end({"reason": "failures", "message": "3 of 5 trials failed"}, {"title": "Too many"}) == ""


def test_an_activity_in_words() -> None:
    assert describe_activity({"stage": "train", "share": 0.4, "message": "epoch 1"}) == "train, 40 %: epoch 1"
    assert describe_activity(None) == ""


class TestVerdict:
    def test_better(self) -> None:
        text = verdict([values(0.9, 1e-3)], [values(0.8, 2e-3)], SPEC)
        assert "are better than" in text
        assert "1 of 1 uniform design is dominated" in text

    def test_worse_is_said(self) -> None:
        text = verdict([values(0.8, 2e-3)], [values(0.9, 1e-3)], SPEC)
        assert "are not better than" in text
        assert "0 of 1" in text

    @pytest.mark.parametrize(
        ("found", "uniform", "told"),
        [
            ((0.81, 1e-3), [(0.795, 1e-3), (0.79, 2e-3)], "ones (3.1 times the hypervolume); 2"),
            ((0.8, 1e-3), [(0.795, 1e-3), (0.79, 2e-3)], "ones (+83 % hypervolume); 2"),
            (
                (0.81, 1e-3),
                [(0.8, 1.9e-3), (0.79, 1e-3)],
                "ones, which reach less than a fifth of their",
            ),
        ],
    )
    def test_a_gain_over_nearly_nothing_is_no_percentage(
        self, found: tuple[float, float], uniform: list[tuple[float, float]], told: str
    ) -> None:
        assert told in verdict([values(*found)], [values(*one) for one in uniform], SPEC)

    def test_equal(self) -> None:
        assert "are as good as" in verdict([values(0.9, 1e-3)], [values(0.9, 1e-3)], SPEC)

    def test_nothing_to_compare(self) -> None:
        assert "found no design" in verdict([], [values(0.9, 1e-3)], SPEC)
        assert "nothing to compare" in verdict([values(0.9, 1e-3)], [], SPEC)


def test_a_report_shows_what_is_on_both_sides() -> None:
    report = {"reported": values(0.9, 4e-4), "remeasured": {"accuracy": 0.9, "file_bytes": 3.0}}
    (figure,) = report_figures(report)
    assert (figure.name, figure.reported, figure.measured) == ("accuracy (%)", "90.00", "90.00")
