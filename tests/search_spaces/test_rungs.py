"""Ranks at the steps of an evaluation: closed forms, a brute-force ranking, who is never stopped, faults of steps."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.check import SpecError, check_spec
from search_spaces.pareto import front_indices
from search_spaces.parse import parse_spec
from search_spaces.rungs import (
    LATELY,
    Ended,
    Rank,
    Standing,
    crowding_distances,
    expect,
    objectives_of,
    promise,
    rank_among,
    stand,
    standing_from_json,
    why_stopped,
)
from search_spaces.spec import ObjectiveSpec, RungsSpec
from tests.search_spaces.test_pareto import ACCURACY, LATENCY, SIZE, THREE, TWO, dominates
from tests.workers.on_digits import digits_document
from workers.announce import local_known

ONE = (ACCURACY,)
KEEP, LEAST = 0.33, 6
RUNGS = RungsSpec.model_validate({"steps": [{"score_images": 50}, {"score_images": 90}]})
GRID = st.integers(0, 6)  # so that points tie and repeat
SHARES = GRID.map(lambda number: number / 8)


def point(accuracy: float, latency_s: float = 0.0, size_bytes: float = 0.0) -> dict[str, float]:
    return {"accuracy": accuracy, "latency_s": latency_s, "size_bytes": size_bytes}


def rows(values, objectives):
    return [[one[objective.metric] for objective in objectives] for one in values]


def ranks(values, objectives: tuple[ObjectiveSpec, ...]) -> list[Rank]:
    """Each among all others."""
    return [
        rank_among(one, rows(values[:place] + values[place + 1 :], objectives), objectives)
        for place, one in enumerate(values)
    ]


def test_of_one_objective_the_place_is_the_number_of_better_ones():
    values = [point(0.5), point(0.9), point(0.7), point(0.7), point(0.1)]
    assert [rank.place for rank in ranks(values, ONE)] == [3, 0, 1, 1, 4]
    assert {rank.trials for rank in ranks(values, ONE)} == {5}


def test_fronts_come_first_and_then_the_room_around():
    """Four on the first front, whose ends are best and whose middle ones differ in room; one behind all of them."""
    front = [point(0.9, 9.0), point(0.8, 8.0), point(0.5, 2.0), point(0.1, 1.0)]
    behind = point(0.05, 10.0)
    # Spans 0.8 and 8: the second has (0.9 - 0.5) / 0.8 + (9 - 2) / 8, the third (0.8 - 0.1) / 0.8 + (8 - 1) / 8.
    assert crowding_distances(np.array(rows(front, TWO))) == pytest.approx([math.inf, 1.375, 1.75, math.inf])
    assert [rank.place for rank in ranks([*front, behind], TWO)] == [0, 3, 2, 0, 4]
    assert [rank.front for rank in ranks([*front, behind], TWO)] == [0, 0, 0, 0, 1]


def test_equal_points_have_the_room_of_one():
    lone = crowding_distances(np.array([[0.0, 4.0], [1.0, 2.0], [4.0, 0.0]]))
    doubled = crowding_distances(np.array([[1.0, 2.0], [0.0, 4.0], [1.0, 2.0], [4.0, 0.0]]))
    assert doubled.tolist() == [lone[1], lone[0], lone[1], lone[2]]
    assert crowding_distances(np.array([[3.0, 3.0]])).tolist() == [math.inf]


def test_who_goes_on():
    assert Rank(front=4, place=4, trials=5).goes_on(KEEP, LEAST)  # too few to tell
    assert Rank(front=1, place=1, trials=6).goes_on(KEEP, LEAST)  # 0.33 * 6 = 1.98
    assert not Rank(front=1, place=2, trials=6).goes_on(KEEP, LEAST)
    assert Rank(front=3, place=32, trials=100).goes_on(KEEP, LEAST)
    assert not Rank(front=3, place=33, trials=100).goes_on(KEEP, LEAST)
    assert Rank(front=0, place=99, trials=100).goes_on(KEEP, LEAST)  # on the front


points = st.lists(st.builds(point, SHARES, GRID, GRID), min_size=1, max_size=20)
objective_sets = st.sampled_from([ONE, (SIZE,), TWO, THREE])


@given(points, objective_sets, st.floats(0.01, 0.99))
def test_the_best_of_a_step_is_never_stopped(values, objectives, keep):
    places = ranks(values, objectives)
    assert min(rank.place for rank in places) == 0
    best = front_indices(values, objectives)
    assert best
    assert all(places[place].goes_on(keep, 2) for place in best)
    assert all((rank.front == 0) == (place in best) for place, rank in enumerate(places))


@given(points, objective_sets, st.floats(0.01, 0.99))
def test_no_more_go_on_than_the_share_and_the_front(values, objectives, keep):
    """Equal points go on together."""
    going = [rank for rank in ranks(values, objectives) if rank.goes_on(keep, 2)]
    behind = [rank.place for rank in going if rank.front > 0]
    assert len(set(behind)) <= math.ceil(keep * len(values))
    assert all(place < keep * len(values) for place in behind if len(values) > 1)


@given(points, objective_sets, st.randoms(use_true_random=False))
def test_a_dominated_trial_is_behind_and_order_means_nothing(values, objectives, random):
    places = ranks(values, objectives)
    for one, rank in zip(values, places, strict=True):
        for other, behind in zip(values, places, strict=True):
            if dominates(one, other, objectives):
                assert rank.place < behind.place
            if rows([one], objectives) == rows([other], objectives):
                assert rank == behind
    shuffled = list(range(len(values)))
    random.shuffle(shuffled)
    again = ranks([values[place] for place in shuffled], objectives)
    assert [places[place] for place in shuffled] == again


def test_the_first_trial_is_ranked_among_nobody():
    assert rank_among(point(0.1, 5.0), [], TWO) == Rank(front=0, place=0, trials=1)


def test_a_value_that_is_not_known_cannot_be_ranked():
    assert objectives_of({"accuracy": 0.5, "size_bytes": 3.0}, (ACCURACY, SIZE)) == {"accuracy": 0.5, "size_bytes": 3.0}
    assert objectives_of({"accuracy": 0.5}, TWO) is None
    assert objectives_of(point(math.nan), TWO) is None
    assert objectives_of(point(0.5, math.inf), (ACCURACY, LATENCY)) is None


def test_a_standing_survives_json():
    standing = Standing(
        [[[0.5, 2.0]], []], [[[[0.5, 2.0], [0.75, 2.0]]], []], [[0.75, 2.0]], [1.0, 0.0, 5.0], [2.0, 3.0], 1
    )
    assert standing_from_json(json.loads(json.dumps(standing.to_json()))) == standing
    assert standing_from_json(None) is None


# --- what is foretold -------------------------------------------------------------------------------------------


def pairs_of(*moved: tuple[float, float], size_bytes: float = 7.0):
    """Of accuracy and size; the size is what it is."""
    return [[[here, size_bytes], [end, size_bytes]] for here, end in moved]


NEAR = [(0.80, 0.81), (0.79, 0.84), (0.78, 0.81), (0.82, 0.80), (0.77, 0.70)]  # gains 0.01, 0.05, 0.03, -0.02, -0.07
FAR = [(0.30, 0.90), (0.20, 0.80)]


def standing_with(pairs, full, **more) -> Standing:
    return Standing([[]], [pairs], full, **more)


def test_a_trial_promises_what_it_would_add_with_the_gains_of_the_five_nearest():
    pairs = [[[here], [end]] for here, end in FAR + NEAR]
    promised, usual = promise(point(0.795), 0, standing_with(pairs, [[0.8], [0.3]]), ONE)
    assert promised == pytest.approx((0.005 + 0.045 + 0.025 + 0 + 0) / 5)
    assert usual == 0.0  # nobody has told what seconds bring


def test_it_must_promise_what_the_same_seconds_have_added_lately():
    """0.2 in ten seconds; it is three from the step to the end."""
    pairs = [[[here], [here]] for here in (0.5, 0.6, 0.7)]
    lately = {"seconds": [1.0, 4.0], "lately_s": [1.0] * 10, "lately_full": 2}
    standing = standing_with(pairs * 2, [[0.5], [0.6], [0.7]], **lately)
    assert promise(point(0.75), 0, standing, ONE) == pytest.approx((0.05, 0.2 * 3 / 10))
    rungs = RUNGS.model_copy(update={"steps": RUNGS.steps[:1]})
    told = "at step 1 of 2 (50 images, 0 epochs of training) it is foretold to add 83 % of what the same seconds"
    assert why_stopped(point(0.75), 0, standing, rungs, ONE) == f"{told} have added lately"
    assert why_stopped(point(0.77), 0, standing, rungs, ONE) is None
    few = standing_with(pairs * 2, [[0.5], [0.6], [0.7]], **(lately | {"lately_s": [1.0] * 4}))
    assert why_stopped(point(0.75), 0, few, rungs, ONE) is None


def test_whoever_is_best_in_one_objective_promises_something():
    """Though it be far worse in the other than all before: the reference point takes it in."""
    pairs = pairs_of(*[(0.5, 0.5)] * 6)
    promised, _ = promise(point(0.9, size_bytes=1e6), 0, standing_with(pairs, [[0.8, 7.0]]), (ACCURACY, SIZE))
    assert promised > 0


def test_the_median_gain_of_the_five_nearest_is_expected():
    told = expect(point(0.795, size_bytes=5.0), pairs_of(*FAR, *NEAR), (ACCURACY, SIZE))
    assert told == pytest.approx({"accuracy": 0.795 + 0.01, "size_bytes": 5.0})
    assert expect(point(0.5), [], ONE) == {"accuracy": 0.5}


def test_no_share_is_expected_to_be_more_than_all():
    assert expect(point(0.95), [[[0.5], [0.9]]], ONE) == {"accuracy": 1.0}
    assert expect(point(0.1), [[[0.9], [0.5]]], ONE) == {"accuracy": 0.0}


def test_less_is_a_gain_where_less_is_better():
    pairs = [[[0.5, 10.0], [0.5, 9.0]], [[0.5, 20.0], [0.5, 17.0]], [[0.5, 12.0], [0.5, 12.0]]]
    assert expect(point(0.5, 15.0), pairs, TWO) == pytest.approx({"accuracy": 0.5, "latency_s": 14.0})


def test_without_others_and_with_one_other():
    assert expect(point(0.5), [], ONE) == {"accuracy": 0.5}
    assert expect(point(0.5), [[[0.1], [0.3]]], ONE) == pytest.approx({"accuracy": 0.7})


def test_what_does_not_change_does_not_tell_who_is_near():
    """Two of the same accuracy, one of which is as large as the trial: both are as near."""
    pairs = [*pairs_of((0.6, 0.7), (0.6, 0.7), size_bytes=1e6), *pairs_of(*[(0.1, 0.9)] * 4, size_bytes=7.0)]
    assert expect(point(0.6, size_bytes=7.0), pairs * 3, (ACCURACY, SIZE)) == pytest.approx(
        {"accuracy": 0.7, "size_bytes": 7.0}
    )


def test_who_is_foretold_to_add_nothing_is_stopped_and_told_why():
    objectives = (ACCURACY, SIZE)
    pairs = pairs_of(*[(0.5, 0.6)] * 6)
    standing = Standing([[], []], [[], pairs], [[0.75, 7.0]])
    behind, ahead, smaller = point(0.6, size_bytes=8.0), point(0.7, size_bytes=8.0), point(0.6, size_bytes=6.0)
    step = "at step 2 of 3 (90 images, 0 epochs of training)"
    reason = f"{step} it is foretold to add nothing to what was evaluated in full"
    assert why_stopped(behind, 1, standing, RUNGS, objectives) == reason
    assert why_stopped(ahead, 1, standing, RUNGS, objectives) is None
    assert why_stopped(smaller, 1, standing, RUNGS, objectives) is None
    assert why_stopped(behind, 0, standing, RUNGS, objectives) is None  # no pairs there: nothing to judge by
    few = Standing([[], []], [[], pairs[:5]], [[0.75, 7.0]])
    assert why_stopped(behind, 1, few, RUNGS, objectives) is None
    nobody = Standing([[], []], [[], pairs], [])
    assert why_stopped(behind, 1, nobody, RUNGS, objectives) is None


@given(points, points, objective_sets)
def test_nothing_is_promised_by_what_is_dominated_or_there_already(values, others, objectives):
    """And something by all others, where nothing is gained until the end."""
    for one in values:
        same = any(rows([one], objectives) == rows([other], objectives) for other in others)
        beaten = any(dominates(other, one, objectives) for other in others)
        standing = standing_with([], rows(others, objectives))
        promised, usual = promise(one, 0, standing, objectives)
        assert (promised <= 0) == (same or beaten)
        assert usual == 0.0


@given(points, points, objective_sets)
def test_a_trial_that_stands_where_three_stood_is_expected_to_end_as_they(values, ends, objectives):
    own, end = rows(values[:1], objectives)[0], rows(ends[:1], objectives)[0]
    elsewhere = zip(rows(values, objectives), rows(ends, objectives), strict=False)
    others = [[own, end]] * 3 + [list(pair) for pair in elsewhere]
    expected = expect(values[0], others, objectives)
    assert [expected[objective.metric] for objective in objectives] == pytest.approx(end)


# --- what is summed up ------------------------------------------------------------------------------------------


def test_a_standing_sums_up_who_has_ended():
    base = Ended({0: [0.1], 1: [0.2]}, [0.3], None, 4.0, is_own=False)
    full = Ended({0: [0.2], 1: [0.3]}, [0.6], None, 6.0, is_own=True)
    reused = Ended({}, [0.5], None, 0.0, is_own=False)
    stopped = Ended({0: [0.1]}, None, 0, 1.0, is_own=True)
    failed = Ended({1: [0.9]}, None, None, 2.0, is_own=True)
    standing = stand([full, base, reused, stopped, failed], 2)
    assert standing == Standing(
        steps=[[[0.2], [0.1], [0.1]], [[0.3], [0.2], [0.9]]],
        pairs=[[[[0.2], [0.6]], [[0.1], [0.3]]], [[[0.3], [0.6]], [[0.2], [0.3]]]],
        full=[[0.3], [0.5], [0.6]],
        seconds=[1.0, 0.0, 5.0],
        lately_s=[6.0, 1.0, 2.0],
        lately_full=1,
    )
    many = stand([base, *[full] * 3, *[stopped] * LATELY], 2)
    assert (many.lately_s, many.lately_full) == ([1.0] * LATELY, 0)


# --- the steps of a spec ----------------------------------------------------------------------------------------


def spec_with(steps, **evaluation):
    rungs = {"steps": steps}
    return parse_spec(digits_document(evaluation={"score_images": 150, "rungs": rungs} | evaluation))


def pointers(steps, **evaluation) -> list[str]:
    with pytest.raises(SpecError) as refused:
        check_spec(spec_with(steps, **evaluation), local_known())
    return [fault.pointer for fault in refused.value.faults]


def test_steps_that_grow_are_accepted_and_the_full_evaluation_is_the_last():
    spec = spec_with([{"score_images": 50}, {"score_images": 150, "finetune_epochs": 0.5}], finetune_epochs=1.0)
    assert check_spec(spec, local_known()).spec.evaluation.steps[-1].model_dump() == {
        "score_images": 150,
        "finetune_epochs": 1.0,
    }
    assert len(spec.evaluation.steps) == 3
    through_rounding = spec_with([{"score_images": 150}], quantisation_aware={"epochs": 1.0})
    assert check_spec(through_rounding, local_known())


@pytest.mark.parametrize(
    ("steps", "evaluation", "expected"),
    [
        ([{"score_images": 150}], {}, ["/evaluation/rungs/steps/0"]),  # all that the full one has
        ([{"score_images": 50, "finetune_epochs": 2.0}], {"finetune_epochs": 1.0}, ["/evaluation/rungs/steps/0"]),
        ([{"score_images": 50}, {"score_images": 50}], {}, ["/evaluation/rungs/steps/1"]),
        (
            [{"score_images": 50, "finetune_epochs": 0.5}, {"score_images": 90}],
            {"finetune_epochs": 1.0},
            ["/evaluation/rungs/steps/1"],
        ),
        ([{"score_images": 50_000}], {}, ["/evaluation/rungs/steps/0/score_images", "/evaluation/rungs/steps/0"]),
    ],
)
def test_steps_that_do_not_grow_are_refused_where_they_are(steps, evaluation, expected):
    assert pointers(steps, **evaluation) == expected


@pytest.mark.parametrize(
    ("rungs", "pointer"),
    [
        ({"steps": []}, "/evaluation/rungs/steps"),
        ({"steps": [{"score_images": 5}]}, "/evaluation/rungs/steps/0/score_images"),
        ({"steps": [{"finetune_epochs": 1}]}, "/evaluation/rungs/steps/0/score_images"),
        ({"steps": [{"score_images": 50}], "keep": 1.0}, "/evaluation/rungs/keep"),
        ({"steps": [{"score_images": 50}], "least": 1}, "/evaluation/rungs/least"),
        ({"steps": [{"score_images": 50}], "most": 1}, "/evaluation/rungs/most"),
    ],
)
def test_what_is_no_rungs(rungs, pointer):
    with pytest.raises(SpecError) as refused:
        parse_spec(digits_document(evaluation={"rungs": rungs}))
    assert [fault.pointer for fault in refused.value.faults] == [pointer]


def test_a_plateau_that_the_budget_does_not_reach_is_warned_of():
    spec = parse_spec(digits_document(budget={"trials": 20, "plateau": {}}))
    assert any("plateau" in warning for warning in check_spec(spec, local_known()).warnings)


@pytest.mark.parametrize(
    ("budget", "is_told"), [({}, True), ({"evaluator_s": 60.0}, False), ({"wall_time_s": 60}, False)]
)
def test_that_stopped_trials_count_is_warned_of_where_trials_alone_bound_the_search(budget, is_told):
    evaluation = {"score_images": 150, "rungs": {"steps": [{"score_images": 50}]}}
    spec = parse_spec(digits_document(evaluation=evaluation, budget={"trials": 20} | budget))
    assert any("budget.evaluator_s" in warning for warning in check_spec(spec, local_known()).warnings) == is_told
