"""Fronts, hypervolume and limits, against brute force."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.pareto import (
    front_indices,
    front_rows,
    hypervolume,
    is_feasible,
    knee,
    reference_point,
    spread,
    violations,
)
from search_spaces.spec import LimitSpec, ObjectiveSpec

ACCURACY = ObjectiveSpec(metric="accuracy", direction="maximize")
LATENCY = ObjectiveSpec(metric="latency_s", direction="minimize", device="cpu")
SIZE = ObjectiveSpec(metric="size_bytes", direction="minimize")
TWO, THREE = (ACCURACY, LATENCY), (ACCURACY, LATENCY, SIZE)
GRID = st.integers(0, 6)  # small whole numbers, so that points tie and repeat

points = st.lists(
    st.builds(lambda a, b, c: {"accuracy": a, "latency_s": b, "size_bytes": c}, GRID, GRID, GRID), max_size=25
)


def dominates(one, other, objectives):
    signs = {o.metric: -1 if o.direction == "maximize" else 1 for o in objectives}
    pairs = [(sign * one[metric], sign * other[metric]) for metric, sign in signs.items()]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


@given(points, st.sampled_from([TWO, THREE, (SIZE,)]))
def test_the_front_is_what_nothing_dominates(values, objectives):
    expected = [i for i, one in enumerate(values) if not any(dominates(other, one, objectives) for other in values)]
    assert front_indices(values, objectives) == expected
    table = np.array([[one[o.metric] for o in objectives] for one in values], dtype=float).reshape(-1, len(objectives))
    assert front_rows(table, objectives) == expected


@settings(deadline=None)
@given(points)
def test_hypervolume_counts_the_unit_cells_that_are_dominated(values):
    reference = {"accuracy": -1, "latency_s": 7, "size_bytes": 7}
    cells = sum(
        any(v["accuracy"] >= a and v["latency_s"] <= b and v["size_bytes"] <= c for v in values)
        for a in range(7)
        for b in range(7)
        for c in range(7)
    )
    assert hypervolume(values, THREE, reference) == pytest.approx(cells)


def test_points_beyond_the_reference_add_nothing():
    reference = {"accuracy": 0.5, "latency_s": 1.0}
    assert hypervolume([{"accuracy": 0.4, "latency_s": 0.1}], TWO, reference) == 0.0
    assert hypervolume([], TWO, reference) == 0.0


@given(points.filter(bool))
def test_every_point_is_better_than_the_reference(values):
    reference = reference_point(values, THREE)
    for value in values:
        assert value["accuracy"] > reference["accuracy"]
        assert value["latency_s"] < reference["latency_s"]
        assert value["size_bytes"] < reference["size_bytes"]


def test_a_reference_needs_a_point():
    with pytest.raises(ValueError, match="no point"):
        reference_point([{"accuracy": math.nan, "latency_s": 1.0}], TWO)


def test_unknown_and_unfinite_values_are_on_no_front():
    values = [{"accuracy": 0.9}, {"accuracy": math.nan, "latency_s": 1.0}, {"accuracy": 0.8, "latency_s": 2.0}]
    values.append({"accuracy": 0.9, "latency_s": math.inf})
    assert front_indices(values, TWO) == [2]
    assert knee(values, TWO) == 2
    assert spread(values, TWO, 5) == [2]
    assert hypervolume(values, TWO, {"accuracy": 0.0, "latency_s": 4.0}) == pytest.approx(0.8 * 2)


def test_the_knee_is_where_the_front_bends_most():
    values = [{"accuracy": a, "latency_s": b} for a, b in ((0.2, 1.0), (0.85, 1.5), (0.9, 10.0), (0.1, 5.0))]
    assert knee(values, TWO) == 1
    assert knee([], TWO) is None
    assert knee(values, (ACCURACY,)) == 2


@given(points, st.integers(0, 30))
def test_a_spread_is_a_part_of_the_front_with_its_ends(values, count):
    front, chosen = front_indices(values, TWO), spread(values, TWO, count)
    assert len(chosen) == len(set(chosen)) == min(count, len(front))
    assert set(chosen) <= set(front)
    if front and count >= 3:
        assert max(values[i]["accuracy"] for i in front) == max(values[i]["accuracy"] for i in chosen)
        assert min(values[i]["latency_s"] for i in front) == min(values[i]["latency_s"] for i in chosen)
        assert knee(values, TWO) in chosen


def test_a_miss_is_relative_and_named_after_its_limit():
    limits = (LimitSpec(metric="size_bytes", max=200), LimitSpec(metric="accuracy", min=0.8))
    assert violations({"size_bytes": 300, "accuracy": 0.6}, limits) == {
        "size_bytes.max": pytest.approx(0.5),
        "accuracy.min": pytest.approx(0.25),
    }
    assert violations({"size_bytes": 200, "accuracy": 0.8}, limits) == {}
    assert violations({"size_bytes": 300}, limits) == {"size_bytes.max": pytest.approx(0.5)}
    assert violations({"macs": 3}, (LimitSpec(metric="macs", max=0),)) == {"macs.max": 3}
    assert violations({"macs": math.nan}, (LimitSpec(metric="macs", max=9),)) == {"macs.max": math.inf}


def test_feasible_means_known_and_within():
    limits = (LimitSpec(metric="size_bytes", max=200),)
    assert is_feasible({"size_bytes": 200}, limits)
    assert not is_feasible({"size_bytes": 201}, limits)
    assert not is_feasible({}, limits)
    assert is_feasible({}, ())
