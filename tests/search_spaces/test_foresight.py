"""When a prediction is enough, and when the device is asked."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.foresight import CHECK_EVERY, Foresight, WhyMeasured, foresight_from_json, why_measured
from search_spaces.objectives import Direction
from search_spaces.pareto import front_indices
from search_spaces.spec import LimitSpec, ObjectiveSpec

OBJECTIVES = (
    ObjectiveSpec(metric="accuracy", direction=Direction.MAXIMIZE),
    ObjectiveSpec(metric="latency_s", direction=Direction.MINIMIZE, device="d"),
)
LIMIT = LimitSpec(metric="latency_s", max=2.0, device="d")


def foresee(low: float, value: float, high: float, front=()) -> Foresight:
    return Foresight("latency_s", value, low, high, 1, 1, None, front)


@pytest.mark.parametrize(
    ("low", "high", "number", "why"),
    [
        (1.0, 1.5, 3, None),  # surely within the limit
        (2.5, 3.0, 3, None),  # surely beyond it
        (1.9, 2.1, 3, WhyMeasured.LIMIT),
        (2.0, 2.1, 3, WhyMeasured.LIMIT),
        (1.0, 1.5, CHECK_EVERY, WhyMeasured.CHECK),
    ],
)
def test_a_limit_within_the_interval_has_to_be_measured(low, high, number, why):
    assert why_measured("latency_s", low, high, (LIMIT,), number, always=False) is why
    assert why_measured("latency_s", low, high, (LIMIT,), number, always=True) is WhyMeasured.ASKED


def test_limits_of_other_metrics_do_not_matter():
    other = LimitSpec(metric="size_bytes", max=2.0)
    assert why_measured("latency_s", 1.9, 2.1, (other,), 3, always=False) is None


def test_a_design_that_may_be_on_the_front_by_the_better_end_is_measured():
    front = [{"accuracy": 0.9, "latency_s": 1.0}]
    assert foresee(0.9, 1.1, 1.3, front).may_join({"accuracy": 0.9}, OBJECTIVES)
    assert not foresee(1.05, 1.1, 1.3, front).may_join({"accuracy": 0.9}, OBJECTIVES)
    assert foresee(1.05, 1.1, 1.3, front).may_join({"accuracy": 0.91}, OBJECTIVES)
    assert foresee(1.05, 1.1, 1.3).may_join({"accuracy": 0.1}, OBJECTIVES)


points = st.lists(st.tuples(st.floats(0, 1), st.floats(0.1, 10)), min_size=1, max_size=12)


@given(points, st.floats(0.01, 0.5))
def test_nobody_on_the_front_is_only_predicted(found, half):
    """Told one by one, the truth at the better end of each interval: all on the last front were measured."""
    told: list[dict[str, float]] = []
    measured: list[bool] = []
    for accuracy, truth in found:
        front = [told[index] for index in front_indices(told, OBJECTIVES)]
        # the model is off by its whole half width, in the direction that hides members
        foresight = foresee(truth, truth + half, truth + 2 * half, front)
        is_measured = foresight.may_join({"accuracy": accuracy}, OBJECTIVES)
        measured.append(is_measured)
        told.append({"accuracy": accuracy, "latency_s": truth if is_measured else foresight.value})
    assert all(measured[index] for index in front_indices(told, OBJECTIVES))


def test_json_both_ways():
    foresight = foresee(1.0, 1.1, 1.2, [{"accuracy": 0.5, "latency_s": 2.0}])
    assert foresight_from_json(json.loads(json.dumps(foresight.to_json()))) == foresight
    assert "front" not in foresight.told()
