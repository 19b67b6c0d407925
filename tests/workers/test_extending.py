"""A search that is over goes on, and only what failed is run again. Real rows and real planning."""

from __future__ import annotations

from dataclasses import replace

import pytest

from search_spaces.objectives import TrialState
from service import db
from service.errors import StateConflictError
from service.models import Measurement
from service.searches import actions
from service.searches.extensions import EMPTY_FRONT, wall_time_s_of
from service.searches.queries import lock_search
from service.searches.specs import spec_of
from service.states import EndReason, JobState, SearchState
from tests.workers.invented import (
    go_on,
    hypervolume,
    make_spec,
    on_sqlite,
    run,
    told,
)
from workers.live_sampler import SAVED_EVERY_TRIALS, LiveSamplers, unheard_trials


def test_a_search_that_is_over_can_be_extended(stage, invented):
    search_id = run(stage, make_spec())
    before, finalists = stage.trials(search_id), stage.finalists(search_id)
    reached = hypervolume(stage, search_id)
    go_on(stage, search_id, 4)
    assert stage.search(search_id).state is SearchState.RUNNING
    stage.deliver()
    search, after = stage.search(search_id), stage.trials(search_id)
    assert search.state is SearchState.SUCCEEDED
    assert len(after) == len(before) + 4
    assert [(trial.id, trial.values, trial.finish_number) for trial in after[: len(before)]] == [
        (trial.id, trial.values, trial.finish_number) for trial in before
    ]
    assert hypervolume(stage, search_id) >= reached
    confirmed = {finalist.id: finalist for finalist in stage.finalists(search_id)}
    assert all(confirmed[one.id].finished_at == one.finished_at for one in finalists)
    assert all(one.state == JobState.SUCCEEDED for one in confirmed.values())
    states = [one["state"] for one in told(stage, search_id, "state")]
    assert states[-4:] == ["succeeded", "running", "confirming", "succeeded"] or states[-2:] == ["running", "succeeded"]


def test_a_larger_budget_may_lead_auto_to_another_sampler_and_the_search_says_so(stage, invented):
    some = {"choices": ["fp32", "w8a8"], "layers": ["block1.*", "block2.*", "block3.*", "block4.*"]}
    spec = make_spec(space={"precision": some}, sampler={"name": "auto"}, budget={"trials": 2})
    search_id = run(stage, spec)
    assert stage.search(search_id).sampler["why"].startswith("2 trials are few of")
    go_on(stage, search_id, 4)
    stage.deliver()
    assert stage.search(search_id).sampler["why"].startswith("6 trials are few of")
    go_on(stage, search_id, 1000)
    stage.deliver()
    search = stage.search(search_id)
    assert search.sampler["name"] == "grid"
    assert search.end_reason == EndReason.EXHAUSTED


def test_what_failed_is_run_again_and_nothing_else(stage, invented):
    search_id = stage.submit(make_spec())
    stage.deliver(4)
    invented.fault = True
    stage.deliver(2)
    invented.fault = False
    stage.deliver()
    failed = [trial for trial in stage.trials(search_id) if trial.state == TrialState.FAILED]
    assert failed
    invented.tried.clear()
    go_on(stage, search_id, 1)
    assert "once more" in told(stage, search_id, "state")[-1]["reason"]
    stage.deliver()
    assert [trial.design for trial in failed] == invented.tried[: len(failed)]
    assert len(invented.tried) == len(failed) + 1
    again = [trial for trial in stage.trials(search_id) if trial.id in {one.id for one in failed}]
    assert {(trial.state, trial.attempt, trial.reason) for trial in again} == {("succeeded", 1, "")}
    numbers = [trial.finish_number for trial in stage.trials(search_id)]
    assert len(set(numbers)) == len(numbers)


def test_what_was_measured_of_a_failed_trial_stays_a_figure_of_its_workload(stage, invented):
    search_id = run(stage, make_spec())
    (trial, *_) = stage.trials(search_id)
    with db.transaction(stage.workplace.engine) as session:
        session.get_one(type(trial), trial.id).state = "failed"
        figures = {"median": 1.0, "lower_quartile": 1.0, "upper_quartile": 1.0, "count": 1, "samples": [1.0]}
        row = {"workload_id": 1, "conditions_id": 1, "metric": "latency_s", "provenance": "measured"}
        session.add(Measurement(**row, **figures, trial_id=trial.id))
    go_on(stage, search_id, 1)
    with db.reading(stage.workplace.engine) as session:
        assert [row.trial_id for row in session.query(Measurement)] == [None]


@on_sqlite
def test_the_wall_time_of_an_extension_is_of_that_one_alone(stage, invented):
    search_id = run(stage, make_spec(budget={"trials": 2, "wall_time_s": 5000.0}))
    for wall_time_s, expected in ((60.0, 60.0), (None, 5000.0)):
        go_on(stage, search_id, 1, wall_time_s=wall_time_s)
        stage.deliver()
        search = stage.search(search_id)
        assert search.state is SearchState.SUCCEEDED
        assert search.spec["budget"]["wall_time_s"] == 5000.0
        assert wall_time_s_of(search, spec_of(search).budget) == expected


@on_sqlite
def test_a_snapshot_fits_though_an_extension_has_left_gaps(stage, invented, tmp_path):
    """What failed is run once more, and gets a number behind the others."""
    search_id = stage.submit(make_spec(sampler={"name": "ddpg"}, budget={"trials": 4, "failure_share": 0.9}))
    stage.deliver(4)
    invented.fault = True
    stage.deliver(1)
    invented.fault = False
    stage.deliver()
    go_on(stage, search_id, 2)
    stage.deliver()
    numbers = [trial.finish_number for trial in stage.trials(search_id)]
    assert sorted(numbers) != list(range(1, len(numbers) + 1))
    with db.reading(stage.workplace.engine) as session:
        first = LiveSamplers(tmp_path)
        live = first.take(session, stage.search(search_id))
        first.tell(search_id, live, unheard_trials(session, search_id, live))
        first._save(search_id, replace(live, saved=-SAVED_EVERY_TRIALS))
        again = LiveSamplers(tmp_path).take(session, stage.search(search_id))
    assert again.told == live.told == max(numbers)


@on_sqlite
def test_too_many_failures_are_no_end_for_ever(stage, invented):
    invented.fault = True
    search_id = stage.submit(make_spec())
    stage.deliver()
    assert stage.search(search_id).state is SearchState.FAILED
    invented.fault = False
    go_on(stage, search_id, 2)
    stage.deliver()
    search = stage.search(search_id)
    assert (search.state, search.problem) == (SearchState.SUCCEEDED, None)
    assert {trial.state for trial in stage.trials(search_id)} == {"succeeded"}


@on_sqlite
def test_a_cancelled_search_goes_on_with_what_was_dropped(stage, invented):
    search_id = stage.submit(make_spec())
    stage.deliver(3)
    with db.transaction(stage.workplace.engine) as session:
        actions.cancel(session, lock_search(session, search_id))
    stage.deliver()
    dropped = [trial.number for trial in stage.trials(search_id) if trial.state == "cancelled"]
    assert dropped
    go_on(stage, search_id, 3)
    stage.deliver()
    assert stage.search(search_id).state is SearchState.SUCCEEDED
    assert {trial.state for trial in stage.trials(search_id)} == {"succeeded"}


@on_sqlite
def test_the_wall_time_of_an_extension_begins_with_it(stage, invented):
    search_id = stage.submit(make_spec(budget={"trials": 1000, "wall_time_s": 900}))
    stage.deliver(12)
    stage.age(901)
    stage.deliver()
    ended = len(stage.trials(search_id))
    go_on(stage, search_id, 5)
    stage.deliver()
    assert len(stage.trials(search_id)) == ended + 5


@on_sqlite
@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2"])
def test_a_planner_that_lived_through_it_goes_on_as_one_that_starts_anew(stage, sampler):
    spec = make_spec(sampler={"name": sampler, "seed": 3}, budget={"trials": 8})
    one, other = run(stage, spec), run(stage, spec)
    go_on(stage, one, 6)
    stage.deliver()
    stage.samplers = LiveSamplers()
    go_on(stage, other, 6)
    stage.deliver()
    assert [trial.design for trial in stage.trials(one)] == [trial.design for trial in stage.trials(other)]


@on_sqlite
def test_the_warning_of_an_empty_front_goes_with_the_extension(stage, invented):
    invented.result = {"state": "infeasible", "reason": "accuracy is below"}
    search_id = run(stage, make_spec(limits=[{"metric": "accuracy", "min": 0.95}]))
    assert EMPTY_FRONT in stage.search(search_id).warnings
    go_on(stage, search_id, 1)
    assert EMPTY_FRONT not in stage.search(search_id).warnings


@on_sqlite
def test_only_what_is_over_and_was_prepared_can_be_extended(stage, invented):
    waiting = stage.submit(make_spec())
    with pytest.raises(StateConflictError, match="once it is over"):
        go_on(stage, waiting, 1)
    with db.transaction(stage.workplace.engine) as session:
        actions.cancel(session, lock_search(session, waiting))
    with pytest.raises(StateConflictError, match="before its network was prepared"):
        go_on(stage, waiting, 1)
