"""What ends a search: each reason by itself, kept with the search, told in its events; what is counted towards it."""

from __future__ import annotations

import time
from typing import Any

import pytest
from sqlalchemy import select

from search_spaces.check import check_spec
from service import db
from service.models import Event
from service.searches import actions
from service.searches.queries import lock_search
from service.states import EndReason, SearchState, TrialState
from tests.workers.stage import Stage, evaluation, invent, make_spec
from tests.workers.test_plan import evaluate_with, fail_every
from workers.announce import local_known
from workers.evaluator import FaultKind, JobName
from workers.evaluator_process import JobError


def end_of(stage: Stage, search_id: str) -> tuple[str | None, str]:
    search = stage.search(search_id)
    return search.end_reason, search.end_message


def told_ends(stage: Stage, search_id: str) -> list[tuple[str, str | None]]:
    with db.reading(stage.workplace.engine) as session:
        events = session.scalars(select(Event).where(Event.search_id == search_id, Event.kind == "state"))
        return [(one.data["state"], one.data.get("end_reason")) for one in sorted(events, key=lambda one: one.seq)]


def run_with_accuracies(stage: Stage, told: list[float], **budget: Any) -> str:
    """A search whose sampler's trials get these accuracies one after another, and then the last one again and again.

    Of the uniform baseline the first has 0.5 and the others 0.4. All have one size, so that the hypervolume is the best
    accuracy over the reference, times a constant.
    """
    spec = make_spec(budget=budget, evaluation=evaluation(top=0))
    uniform = [design.to_json() for design in check_spec(spec, local_known()).space.uniform]
    left = list(told)

    def result(job: JobName, arguments: dict[str, Any]) -> dict[str, Any]:
        found = invent(job, arguments)
        if job is not JobName.EVALUATE:
            return found
        if arguments["design"] in uniform:
            accuracy = 0.5 if arguments["design"] == uniform[0] else 0.4
        else:
            accuracy = left.pop(0) if len(left) > 1 else left[0]
        return found | {"values": {"accuracy": accuracy, "size_bytes": 1000.0}}

    evaluate_with(stage, result)
    search_id = stage.submit(spec)
    stage.deliver()
    return search_id


def searched(stage: Stage, search_id: str) -> list[Any]:
    return [trial for trial in stage.trials(search_id) if not trial.baseline]


def test_the_budget_of_trials(stage):
    search_id = stage.submit(make_spec())
    stage.deliver(4)
    assert end_of(stage, search_id) == (None, "")
    stage.deliver()
    assert end_of(stage, search_id) == (EndReason.TRIALS, "the budget of 5 trials is spent")
    assert told_ends(stage, search_id)[-3:] == [("running", None), ("confirming", "trials"), ("succeeded", "trials")]


def test_wall_time(stage):
    search_id = stage.submit(make_spec(budget={"trials": 1000, "wall_time_s": 900}))
    stage.deliver(16)
    assert searched(stage, search_id)
    stage.age(901)
    stage.deliver()
    assert end_of(stage, search_id) == (EndReason.WALL_TIME, "the wall time is spent")


def test_time_that_did_not_suffice_for_the_baseline_is_told_as_that(stage):
    search_id = stage.submit(make_spec(budget={"trials": 1000, "wall_time_s": 900}))
    stage.deliver(6)
    stage.age(901)
    stage.deliver()
    reason, message = end_of(stage, search_id)
    assert not searched(stage, search_id)
    assert reason == EndReason.WALL_TIME
    assert message.endswith("is spent; the uniform baseline took all of it, and no design was searched: allow more")


def test_a_sampler_without_a_further_design(stage):
    space = {"group_size": {"choices": [1, 2], "layers": ["block3.depthwise", "block4.depthwise"]}}
    search_id = stage.submit(make_spec(space=space, budget={"trials": 50}))
    stage.deliver()
    assert end_of(stage, search_id)[0] == EndReason.EXHAUSTED


def test_evaluator_seconds_end_it_and_are_counted_per_trial(stage):
    def slowly(job, arguments):
        if job is JobName.EVALUATE:
            time.sleep(0.02)
        return invent(job, arguments)

    evaluate_with(stage, slowly)
    search_id = stage.submit(make_spec(budget={"trials": 1000, "evaluator_s": 0.3}))
    stage.deliver()
    search, trials = stage.search(search_id), stage.trials(search_id)
    ended = [trial for trial in trials if trial.state != TrialState.CANCELLED]
    assert search.state is SearchState.SUCCEEDED
    assert end_of(stage, search_id)[0] == EndReason.EVALUATOR_TIME
    assert all(trial.evaluator_s >= 0.02 for trial in ended)
    assert search.evaluator_s == pytest.approx(sum(trial.evaluator_s for trial in trials))
    assert 0.3 <= search.evaluator_s < 0.3 + max(trial.evaluator_s for trial in trials) + 1e-9
    assert 0 < len(ended) <= 15
    assert stage.finalists(search_id)


def test_seconds_of_attempts_that_came_to_nothing_count_too(stage):
    def dies_twice(job, arguments):
        if job is JobName.EVALUATE:
            calls.append(1)
            time.sleep(0.02)
            if len(calls) <= 2:
                raise JobError(FaultKind.DIED, "killed")
        return invent(job, arguments)

    calls: list[int] = []
    evaluate_with(stage, dies_twice)
    search_id = stage.submit(make_spec(budget={"trials": 1}))
    stage.deliver()
    retried = [trial for trial in stage.trials(search_id) if trial.attempt > 1]
    assert sum(trial.attempt - 1 for trial in retried) == 2
    assert all(trial.evaluator_s >= 0.02 * trial.attempt for trial in retried)


@pytest.mark.parametrize(("share", "is_failed"), [(0.3, True), (0.5, False)])
def test_the_share_of_failures_is_the_specs(stage, share, is_failed):
    evaluate_with(stage, fail_every(3))
    search_id = stage.submit(make_spec(budget={"trials": 12, "failure_share": share}))
    stage.deliver()
    assert (stage.search(search_id).state is SearchState.FAILED) == is_failed
    reason, message = end_of(stage, search_id)
    assert reason == (EndReason.FAILURES if is_failed else EndReason.TRIALS)
    assert ("trials failed, the last one with: it broke" in message) == is_failed


def test_a_plateau_ends_it_where_the_front_stops_growing(stage):
    """Against a reference at 0.4 - 0.1 * (0.5 - 0.4) = 0.39 the best has 0.11 of uniform, then 0.21, then 0.212."""
    search_id = run_with_accuracies(
        stage, [0.6, 0.1, 0.1, 0.602], trials=100, plateau={"trials": 4, "improvement": 0.02}
    )
    assert stage.search(search_id).state is SearchState.SUCCEEDED
    reason, message = end_of(stage, search_id)
    assert reason == EndReason.PLATEAU
    # The last four of four know only the uniform ones before them; of five, 0.6 is before: it grew by 0.95 %.
    assert len(searched(stage, search_id)) == 5
    assert "grown by 0.95 % over the last 4 trials, less than 2 %" in message


def test_a_front_that_grows_is_no_plateau(stage):
    """Each trial adds two hundredths to 0.11: more than 1 % of what was four trials before."""
    growing = [0.5 + 0.02 * number for number in range(1, 21)]
    search_id = run_with_accuracies(stage, growing, trials=20, plateau={"trials": 4})
    assert end_of(stage, search_id)[0] == EndReason.TRIALS
    assert len(searched(stage, search_id)) == 20


def test_failed_trials_count_towards_a_plateau_and_nothing_found_is_none(stage):
    def nothing(job, arguments):
        return invent(job, arguments) | ({"state": "infeasible"} if job is JobName.EVALUATE else {})

    evaluate_with(stage, nothing)
    search_id = stage.submit(make_spec(budget={"trials": 8, "plateau": {"trials": 2}}))
    stage.deliver()
    assert end_of(stage, search_id)[0] == EndReason.TRIALS
    assert len(searched(stage, search_id)) == 8


def test_cancelled_and_failed(stage):
    cancelled = stage.submit(make_spec())
    stage.deliver(3)
    with db.transaction(stage.workplace.engine) as session:
        actions.cancel(session, lock_search(session, cancelled))
    stage.deliver()
    assert stage.search(cancelled).state is SearchState.CANCELLED
    assert end_of(stage, cancelled) == (EndReason.CANCELLED, "it was cancelled")
    assert told_ends(stage, cancelled)[-1] == ("cancelled", "cancelled")

    def result(job, arguments):
        raise JobError(FaultKind.CRASHED, "no route to the archive")

    evaluate_with(stage, result)
    failed = stage.submit(make_spec())
    stage.deliver()
    assert end_of(stage, failed) == (EndReason.FAILED, "no route to the archive")


def test_a_search_that_goes_on_after_a_pause_has_not_ended(stage):
    search_id = stage.submit(make_spec())
    stage.deliver(4)
    for verb in (actions.pause, actions.resume):
        with db.transaction(stage.workplace.engine) as session:
            verb(session, lock_search(session, search_id))
        assert end_of(stage, search_id) == (None, "")
    stage.deliver()
    assert end_of(stage, search_id)[0] == EndReason.TRIALS
