"""Searches replayed on tables: places and costs of designs, volumes, limits, and what runs are judged by."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmarks.search import panel_of, problem_called, replaced, rows_of
from benchmarks.searching.judge import COUNTS, EARLY, GOALS, LATE, LONG, Row, difference, judge, ratio, row_from_json
from benchmarks.searching.play import Run, play, volumes_at
from benchmarks.searching.problem import AIMS, Problem, additive_r2, make_problem
from benchmarks.searching.subject import DEVICE, enumerate_space, recorded_spec, space_of
from benchmarks.searching.table import NOT_FINITE, Table
from search_spaces.accelerators.models import simulate
from search_spaces.apply import apply
from search_spaces.costs import symbolic_values
from search_spaces.objectives import TrialState
from search_spaces.samplers import Proposal
from service.web.curves import render_panels

LIMITED = "latency at half the size"
FAILED = 77


def made_up_table() -> Table:
    """Choices harm on their own and a little together; one design fails."""
    rows = enumerate_space(space_of(recorded_spec()))
    harm = (rows * (1 + np.arange(rows.shape[1]) % 5)).sum(axis=1) + 0.5 * rows[:, 0] * rows[:, 1]
    right = (1500 - 1200 * harm / harm.max()).astype(np.int16)
    right[FAILED] = NOT_FINITE
    return Table(right, np.full(len(rows), 400, np.uint16), {"designs": len(rows), "images": 2000})


@pytest.fixture(scope="module")
def problems() -> dict[str, Problem]:
    table = made_up_table()
    return {name: make_problem(name, table) for name in AIMS}


def test_designs_are_found_at_their_places(problems: dict[str, Problem]):
    problem = problems["size"]
    rows = enumerate_space(problem.space)
    assert [problem.number_of(row) for row in rows] == list(range(4096))


@pytest.mark.parametrize("number", [0, 1, 1234, 4095])
def test_costs_are_those_of_the_network_that_a_design_leads_to(problems: dict[str, Problem], number: int):
    problem = problems["latency"]
    network = apply(problem.space.network, problem.space.design_at(enumerate_space(problem.space)[number]))
    for metric, value in {**symbolic_values(network), **simulate(DEVICE, network)}.items():
        assert problem.values[metric][number] == pytest.approx(value, rel=1e-9)


@settings(deadline=None)  # the first example computes the true front
@given(st.lists(st.integers(0, 4095), max_size=40), st.sampled_from(list(AIMS)))
def test_no_designs_are_worth_more_than_the_true_front(problems: dict[str, Problem], numbers: list[int], name: str):
    problem = problems[name]
    volumes = [problem.volume(np.array(numbers[:count], dtype=np.int64)) for count in range(len(numbers) + 1)]
    assert volumes == sorted(volumes)
    assert volumes[-1] <= problem.best_volume * (1 + 1e-12)
    assert problem.volume(np.arange(4096)) == pytest.approx(problem.best_volume)


def test_sums_over_decisions_explain_sums_and_no_products(problems: dict[str, Problem]):
    space = problems["size"].space
    rows = enumerate_space(space).astype(float)
    assert additive_r2(space, 3 - rows[:, 0] ** 2 + rows[:, 6]) == pytest.approx(1)
    centred = (rows[:, 0] - 1.5) * (rows[:, 1] - 1.5)
    assert additive_r2(space, np.where(rows[:, 0] == 9, np.nan, centred)) == pytest.approx(0)


def test_a_trial_ends_as_a_worker_would_end_it(problems: dict[str, Problem]):
    problem = problems[LIMITED]
    rows = enumerate_space(problem.space)
    whole, failed = (problem.tell(3, Proposal(problem.space.design_at(rows[n]), {})) for n in (0, FAILED))
    assert whole.state is TrialState.INFEASIBLE
    assert "accuracy" not in whole.values
    assert whole.violations == {"size_bytes.max": pytest.approx(1.0)}
    unlimited = problems["size"].tell(3, Proposal(failed.design, {}))
    assert unlimited.state is TrialState.FAILED
    assert "accuracy" not in unlimited.values
    kept = problem.tell(4, Proposal(problem.space.design_at(rows[4095]), {"a": 1}))
    assert kept.state is TrialState.SUCCEEDED
    assert kept.memo == {"a": 1}


@pytest.mark.parametrize("sampler", ["random", "nsga2", "optuna tpe", "optuna nsga2"])
def test_what_is_played_keeps_the_limits_and_comes_again_with_its_seed(problems: dict[str, Problem], sampler: str):
    problem = problems[LIMITED]
    run, again, other = (play(problem, sampler, seed, 20, 20) for seed in (1, 1, 2))
    assert len(run.designs) == 20
    assert problem.keeps[list(run.designs)].all()
    assert run.designs == again.designs != other.designs
    volumes = volumes_at(problem, run.designs, range(21))
    assert volumes == sorted(volumes)
    assert 0 < volumes[0] < volumes[-1] <= 1 + 1e-12


def test_all_begin_with_the_same_baseline(problems: dict[str, Problem]):
    runs = [play(problems["size"], sampler, 0, 5, 5) for sampler in ("uniform", "random", "optuna tpe")]
    assert runs[0].designs == ()
    (share,) = {volumes_at(problems["size"], run.designs, [0])[0] for run in runs}
    baseline = [problems["size"].number_of(row) for row in problems["size"].baseline_indices()]
    assert len(set(baseline)) == 16
    assert share == pytest.approx(problems["size"].volume(np.array(baseline)) / problems["size"].best_volume)


def row_of(sampler: str, share: float) -> Row:
    """Two seeds around a share that never changes."""
    shares = {count: [share - 0.01, share + 0.01] for count in (*COUNTS, LONG)}
    return Row("size", sampler, shares, 0.0, 1.0, "commit")


def test_goals_are_judged_by_what_they_name():
    rows = [row_of("random", 0.95), row_of("optuna tpe", 0.90), row_of("optuna nsga2", 0.98), row_of("ours", 0.976)]
    verdict = judge([row_from_json(row.to_json()) for row in rows])[-1]
    assert [verdict.goals[goal].is_met for goal in GOALS] == [True, True, False, True]
    assert [verdict.goals[goal].value for goal in GOALS] == pytest.approx([0.026, 0.076, -0.004, 0.24])
    assert (EARLY, LATE, LONG) == (100, 200, 1000)


@given(st.lists(st.floats(0, 1), min_size=3, max_size=9), st.lists(st.floats(0, 1), min_size=3, max_size=9))
def test_differences_have_the_interval_of_welch(ours: list[float], theirs: list[float]):
    found = difference(ours, theirs)
    assert found.low <= found.value <= found.high
    if np.ptp(ours) > 1e-3 and np.ptp(theirs) > 1e-3:
        expected = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_ratios_have_an_interval_around_them():
    generator = np.random.default_rng(1)
    ours, theirs = 0.01 + 0.002 * generator.random(40), 0.08 + 0.01 * generator.random(40)
    found = ratio(ours, theirs)
    assert found.low < found.value < found.high
    assert found.value == pytest.approx(ours.mean() / theirs.mean())
    assert found.is_met
    assert found.high < 0.14
    assert ratio(np.zeros(3), theirs).value == 0


def test_rows_are_replaced_and_drawn():
    runs = [play(problem_called(name), "random", seed, 5, 5) for name in AIMS for seed in (1, 0)]
    rows = rows_of([*runs, *(play(problem_called(name), "uniform", 0, 5, 5) for name in AIMS)])
    assert [row.sampler for row in rows] == ["uniform", "random"] * len(AIMS)
    assert rows[1].shares[LONG] == volumes_of_seeds(runs[:2][::-1])
    (new,) = rows_of(runs[:1])
    assert replaced(rows, [new]) == [rows[0], new, *rows[2:]]
    for name in AIMS:
        drawn = render_panels([panel_of(name, rows)])
        assert "random at 1000" in drawn
        assert "uniform at" not in drawn


def volumes_of_seeds(runs: list[Run]) -> list[float]:
    return [volumes_at(problem_called(run.problem), run.designs, [LONG])[0] for run in runs]
