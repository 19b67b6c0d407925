"""A search from submission to its end through the real task functions, with made-up results."""

from dataclasses import replace

import numpy as np
import pytest

from search_spaces.objectives import TrialState
from search_spaces.samplers.ddpg import DdpgSampler
from service import db, leases
from service.models import Event, Refinement, Search
from service.queue import TaskName
from service.refinements.actions import request_refinement
from service.searches import actions
from service.searches.queries import lock_search
from service.states import JobState, SearchState
from tests.workers.stage import Stage, evaluation, invent, make_spec
from workers.evaluator import FaultKind, JobName
from workers.evaluator_process import JobError
from workers.live_sampler import LiveSamplers, unheard_trials
from workers.sampler_snapshots import read_snapshot, write_snapshot


def evaluate_with(stage: Stage, result) -> None:
    with stage.workplace.evaluators.borrow() as evaluator:
        evaluator.result = result


def notes(stage: Stage, search_id: str) -> list[str]:
    with db.reading(stage.workplace.engine) as session:
        events = session.query(Event).filter_by(search_id=search_id, kind="note").order_by(Event.seq)
        return [event.data["message"] for event in events]


def test_a_search_runs_baseline_then_budget_then_finalists(stage):
    search_id = stage.submit(make_spec())
    stage.deliver()
    search, trials, finalists = stage.search(search_id), stage.trials(search_id), stage.finalists(search_id)
    assert search.state is SearchState.SUCCEEDED
    assert search.base_key == "b" * 64
    baseline = [trial for trial in trials if trial.baseline]
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert [trial.number for trial in baseline] == list(range(len(baseline)))
    assert len(baseline) >= 2
    assert len(trials) == len(baseline) + 5
    assert {trial.state for trial in trials} == {TrialState.SUCCEEDED}
    assert sorted(trial.finish_number for trial in trials) == list(range(1, len(trials) + 1))
    assert {finalist.state for finalist in finalists} == {JobState.SUCCEEDED}
    assert 2 <= len(finalists) <= 4
    runs = [row_id for task, row_id in stage.delivered if task is TaskName.RUN]
    assert len(runs) == len(set(runs)) == len(trials)


def test_messages_that_come_twice_do_nothing(stage):
    search_id = stage.submit(make_spec())
    while stage.messages:
        message = stage.messages.pop(0)
        stage.deliver_one(message)
        stage.deliver_one(message)
    assert stage.search(search_id).state is SearchState.SUCCEEDED
    assert {trial.attempt for trial in stage.trials(search_id)} == {1}
    assert [trial.number for trial in stage.trials(search_id)] == list(range(len(stage.trials(search_id))))


def test_no_more_trials_are_open_than_the_spec_allows(stage):
    search_id = stage.submit(make_spec(budget={"trials": 6, "concurrency": 3}))
    most = 0
    while stage.messages:
        stage.deliver(1)
        opened = [trial for trial in stage.trials(search_id) if trial.state == "queued" and trial.published_at]
        most = max(most, len(opened))
    assert most == 3
    assert stage.search(search_id).state is SearchState.SUCCEEDED


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2", "greedy"])
def test_a_planner_that_starts_anew_proposes_the_same(stage, sampler):
    spec = make_spec(sampler={"name": sampler, "seed": 3}, budget={"trials": 8})
    one, other = stage.submit(spec), stage.submit(spec)
    while stage.messages:
        task, row_id = stage.messages.pop(0)
        if row_id == other:
            stage.samplers = LiveSamplers()
        stage.deliver_one((task, row_id))
    first, second = stage.trials(one), stage.trials(other)
    assert len(first) > 8
    assert [trial.design for trial in first] == [trial.design for trial in second]


def agent_spec(trials=10):
    sampler = {"name": "ddpg", "seed": 3, "ddpg": {"hidden": 8, "warm_up_trials": 6}}
    return make_spec(sampler=sampler, budget={"trials": trials})


@pytest.fixture
def told(monkeypatch):
    """How many trials each call tells a sampler with an agent."""
    counts, tell = [], DdpgSampler.tell

    def counted(self, trials):
        counts.append(len(trials))
        tell(self, trials)

    monkeypatch.setattr(DdpgSampler, "tell", counted)
    return counts


def test_a_planner_that_starts_anew_goes_on_from_the_snapshot(stage, told, monkeypatch, tmp_path):
    monkeypatch.setattr("workers.live_sampler.SAVED_EVERY_TRIALS", 4)
    one, other = stage.submit(agent_spec()), stage.submit(agent_spec())
    stage.samplers = LiveSamplers()
    while stage.messages:
        task, row_id = stage.messages.pop(0)
        if task is TaskName.PLAN:
            stage.samplers = LiveSamplers(tmp_path / "samplers" if row_id == other else None)
        stage.deliver_one((task, row_id))
    first, second = stage.trials(one), stage.trials(other)
    assert len(first) > 10
    assert [trial.design for trial in first] == [trial.design for trial in second]
    assert max(told) > 10  # the one without a snapshot was told everything again
    assert sum(1 for count in told if count <= 4) > 8  # the other only what was new
    assert list((tmp_path / "samplers").iterdir()) == []  # removed with the searches' ends


def spoilt(path, how):
    if how == "cut short":
        path.write_bytes(path.read_bytes()[:-500])
    elif how == "no archive":
        path.write_bytes(b"espalier")
    elif how == "pickled":
        np.savez(path, head=np.array([{"told": 3}], dtype=object), allow_pickle=True)
    else:
        snapshot = read_snapshot(path)
        if how == "another spec":
            write_snapshot(path, replace(snapshot, history=replace(snapshot.history, spec="0" * 64)))
        elif how == "another count":
            write_snapshot(path, replace(snapshot, history=replace(snapshot.history, told=snapshot.history.told - 1)))
        elif how == "another history":
            write_snapshot(path, replace(snapshot, history=replace(snapshot.history, trials="0" * 64)))
        else:
            state = {name: part for name, part in snapshot.state.items() if name != "replay.states"}
            write_snapshot(path, replace(snapshot, state=state))


SPOILT = ["cut short", "no archive", "pickled", "another spec", "another count", "another history", "another state"]


def test_a_snapshot_that_does_not_fit_is_not_used(stage, told, monkeypatch, tmp_path):
    monkeypatch.setattr("workers.live_sampler.SAVED_EVERY_TRIALS", 1)
    search_id = stage.submit(agent_spec(trials=40))
    stage.samplers = LiveSamplers(tmp_path)
    for how in [*SPOILT, "as it was"]:
        told.clear()
        while max(told, default=0) == 0:
            stage.deliver(1)
        if how != "as it was":
            spoilt(tmp_path / f"{search_id}.npz", how)
        stage.samplers = LiveSamplers(tmp_path)
        told.clear()
        while not told:
            stage.deliver(1)
        heard = sum(trial.finish_number is not None for trial in stage.trials(search_id))
        assert told == ([heard] if how != "as it was" else [1])


def test_a_planner_that_is_killed_while_it_tells_a_long_history_loses_a_piece(stage, told, monkeypatch, tmp_path):
    monkeypatch.setattr("workers.live_sampler.SAVED_EVERY_TRIALS", 4)
    search_id = stage.submit(agent_spec(trials=40))
    while sum(trial.finish_number is not None for trial in stage.trials(search_id)) < 14:
        stage.deliver(1)

    def tell_all(samplers):
        with db.reading(stage.workplace.engine) as session:
            live = samplers.take(session, stage.search(search_id))
            told_before, unheard = live.told, unheard_trials(session, search_id, live)
        samplers.tell(search_id, live, unheard)
        return told_before, live

    _, whole = tell_all(LiveSamplers())
    monkeypatch.setattr("workers.live_sampler.PIECE", 4)
    told.clear()
    counted = DdpgSampler.tell

    def killed(self, trials):
        if len(told) == 2:
            raise KeyboardInterrupt
        counted(self, trials)

    monkeypatch.setattr(DdpgSampler, "tell", killed)
    with pytest.raises(KeyboardInterrupt):
        tell_all(LiveSamplers(tmp_path))  # there is no snapshot
    monkeypatch.setattr(DdpgSampler, "tell", counted)
    told_before, live = tell_all(LiveSamplers(tmp_path))
    assert told_before == 8
    assert live.told == whole.told >= 14
    assert live.trials == whole.trials
    state, expected = live.sampler.state(), whole.sampler.state()
    assert all(np.array_equal(state[name], part) for name, part in expected.items())
    assert live.sampler.ask(2, 99, []) == whole.sampler.ask(2, 99, [])


def test_designs_that_cost_too_much_end_without_work(stage):
    worked = []

    def result(job, arguments):
        worked.append(arguments.get("design"))
        return invent(job, arguments)

    evaluate_with(stage, result)
    spec = make_spec(limits=[{"metric": "size_bytes", "max": 200_000}])
    search_id = stage.submit(spec)
    stage.deliver()
    trials = stage.trials(search_id)
    ruled_out = [trial for trial in trials if trial.state == TrialState.INFEASIBLE]
    assert ruled_out
    assert all(trial.values["size_bytes"] > 200_000 for trial in ruled_out)
    assert all("size_bytes" in trial.reason and "200,000" in trial.reason for trial in ruled_out)
    assert not any(trial.design in worked for trial in ruled_out)
    assert len([trial for trial in trials if not trial.baseline]) == 5
    assert stage.search(search_id).state is SearchState.SUCCEEDED


def test_a_search_without_a_feasible_trial_succeeds_with_a_warning(stage):
    def infeasible(job, arguments):
        return invent(job, arguments) | {"state": "infeasible", "reason": "accuracy 0.9 is below the limit 0.95"}

    evaluate_with(stage, infeasible)
    search_id = stage.submit(make_spec(limits=[{"metric": "accuracy", "min": 0.95}]))
    stage.deliver()
    assert stage.search(search_id).state is SearchState.SUCCEEDED
    assert "no trial met the limits: the front is empty" in stage.search(search_id).warnings
    assert stage.finalists(search_id) == []


def test_no_finalists_are_confirmed_when_none_is_wanted(stage):
    search_id = stage.submit(make_spec(evaluation=evaluation(top=0)))
    stage.deliver()
    assert stage.search(search_id).state is SearchState.SUCCEEDED
    assert stage.finalists(search_id) == []


def test_a_space_smaller_than_the_budget_ends_the_search(stage):
    space = {"group_size": {"choices": [1, 2], "layers": ["block3.depthwise", "block4.depthwise"]}}
    search_id = stage.submit(make_spec(space=space, budget={"trials": 50}))
    stage.deliver()
    assert stage.search(search_id).state is SearchState.SUCCEEDED
    assert len(stage.trials(search_id)) == 4
    assert "no more trials: the sampler has no further design" in notes(stage, search_id)


def fail_every(count, kind=FaultKind.CRASHED):
    calls = [0]

    def result(job, arguments):
        if job is JobName.EVALUATE:
            calls[0] += 1
            if calls[0] % count == 0:
                raise JobError(kind, "it broke")
        return invent(job, arguments)

    return result


def test_a_trial_that_fails_does_not_stop_the_search(stage):
    evaluate_with(stage, fail_every(3))
    search_id = stage.submit(make_spec())
    stage.deliver()
    failed = [trial for trial in stage.trials(search_id) if trial.state == TrialState.FAILED]
    assert failed
    assert {trial.reason for trial in failed} == {"it broke"}
    assert {trial.details["fault"] for trial in failed} == {"crashed"}
    assert stage.search(search_id).state is SearchState.SUCCEEDED


def test_more_than_half_failing_fails_the_search(stage):
    evaluate_with(stage, fail_every(1))
    search_id = stage.submit(make_spec())
    stage.deliver()
    search = stage.search(search_id)
    assert search.state is SearchState.FAILED
    assert search.problem["type"] == "urn:espalier:problem:too-many-failures"
    assert search.problem["detail"] == "5 of 5 trials failed, the last one with: it broke"
    assert {trial.state for trial in stage.trials(search_id)} <= {"failed", "cancelled"}


def test_an_evaluator_that_dies_is_tried_again_a_few_times(stage):
    evaluate_with(stage, fail_every(1, FaultKind.DIED))
    search_id = stage.submit(make_spec(budget={"trials": 1}))
    stage.deliver()
    assert {trial.attempt for trial in stage.trials(search_id) if trial.state == "failed"} == {leases.MAX_ATTEMPTS}


def test_a_preparation_is_tried_a_few_times_and_then_fails_the_search(stage):
    def result(job, arguments):
        raise JobError(FaultKind.CRASHED, "no route to the archive")

    evaluate_with(stage, result)
    search_id = stage.submit(make_spec())
    stage.deliver()
    search = stage.search(search_id)
    assert search.state is SearchState.FAILED
    assert search.problem["detail"] == "no route to the archive"
    assert [task for task, _ in stage.delivered] == [TaskName.PREPARE] * leases.MAX_ATTEMPTS


def test_a_sampler_that_fails_fails_the_search(stage, monkeypatch):
    class Broken:
        def tell(self, trials):
            raise ZeroDivisionError("no trials")

    monkeypatch.setattr("workers.live_sampler.make_sampler", lambda spec, space: Broken())
    search_id = stage.submit(make_spec())
    stage.deliver()
    assert stage.search(search_id).state is SearchState.FAILED
    assert stage.search(search_id).problem["detail"] == "ZeroDivisionError: no trials"


def test_the_wall_time_ends_trials_and_confirms_what_was_found(stage):
    search_id = stage.submit(make_spec(budget={"trials": 1000, "wall_time_s": 900}))
    stage.deliver(16)
    assert stage.search(search_id).state is SearchState.RUNNING
    stage.age(901)
    stage.deliver()
    search, trials = stage.search(search_id), stage.trials(search_id)
    assert search.state is SearchState.SUCCEEDED
    assert "no more trials: the wall time is spent" in notes(stage, search_id)
    assert len(trials) < 20
    assert stage.finalists(search_id)


def change(stage: Stage, search_id: str, verb) -> None:
    with db.transaction(stage.workplace.engine) as session:
        verb(session, lock_search(session, search_id))


def test_pause_adds_no_trial_and_resume_goes_on(stage):
    search_id = stage.submit(make_spec())
    stage.deliver(6)
    change(stage, search_id, actions.pause)
    stage.deliver()
    paused = stage.trials(search_id)
    assert stage.search(search_id).state is SearchState.PAUSED
    assert not any(trial.state == "running" for trial in paused)
    change(stage, search_id, actions.resume)
    stage.deliver()
    assert stage.search(search_id).state is SearchState.SUCCEEDED
    assert len(stage.trials(search_id)) > len([trial for trial in paused if trial.finish_number])


def test_cancel_during_a_job_is_shown_once_the_job_is_stopped(stage):
    seen = []

    def result(job, arguments):
        if job is not JobName.EVALUATE:
            return invent(job, arguments)
        change(stage, search_id, actions.cancel)
        seen.append(stage.search(search_id).state)
        # What the real supervisor does is in test_evaluator; here the job ends late and is refused.
        return invent(job, arguments)

    evaluate_with(stage, result)
    search_id = stage.submit(make_spec())
    stage.deliver()
    assert seen == [SearchState.CANCELLING]
    assert stage.search(search_id).state is SearchState.CANCELLED
    assert not any(trial.state in ("queued", "running") for trial in stage.trials(search_id))


def test_a_worker_told_to_stop_puts_its_job_back_without_counting_the_attempt(stage):
    search_id = stage.submit(make_spec())
    stage.deliver(2)
    stage.workplace.stopping.set()
    stage.deliver(1)
    trial = stage.trials(search_id)[0]
    assert (trial.state, trial.attempt) == ("queued", 0)
    stage.workplace.stopping.clear()
    stage.deliver()
    assert stage.search(search_id).state is SearchState.SUCCEEDED
    assert stage.trials(search_id)[0].attempt == 1


def test_a_planner_that_lost_its_turn_writes_nothing(stage, monkeypatch):
    search_id = stage.submit(make_spec(sampler={"name": "random"}))
    stage.deliver(1)
    before = []

    def ask_slowly(self, count, first_number, open_designs):
        before.append(len(stage.trials(search_id)))
        with db.transaction(stage.workplace.engine) as session:
            session.get_one(Search, search_id).planner = "somebody else"
        return original(self, count, first_number, open_designs)

    from search_spaces.samplers.random import RandomSampler

    original = RandomSampler.ask
    monkeypatch.setattr(RandomSampler, "ask", ask_slowly)
    stage.deliver()
    assert before
    assert len(stage.trials(search_id)) == before[0]


def test_a_refinement_is_worked_on_when_the_search_is_over(stage):
    search_id = stage.submit(make_spec())
    stage.deliver()
    (trial, *_) = stage.trials(search_id)
    with db.transaction(stage.workplace.engine) as session:
        search = session.get_one(Search, search_id)
        row, _ = request_refinement(session, search, trial, {"epochs": 2.0, "learning_rate": 0.01})
    stage.deliver()
    with db.reading(stage.workplace.engine) as session:
        refinement = session.get_one(Refinement, row.id)
    assert refinement.state == JobState.SUCCEEDED
    assert refinement.values["accuracy"] == pytest.approx(refinement.before["accuracy"] + 0.01)
    assert refinement.weights_digest == "e" * 64
    assert refinement.activity is None
    assert stage.search(search_id).state is SearchState.SUCCEEDED


@pytest.mark.parametrize("sampler", ["grid", "random", "tpe", "nsga2", "greedy"])
def test_designs_that_differ_in_methods_without_effect_are_tried_once(stage, sampler):
    """Nothing is quantised here, so that no range is told, and where nothing is pruned nothing is ranked."""
    space = {
        "prune_ratio": {"low": 0.0, "high": 0.5, "step": 0.5, "layers": ["block13.pointwise"]},
        "importance": {"choices": ["l1", "l2", "loss"]},
        "calibration": {"choices": ["min_max", "kl"]},
    }
    spec = make_spec(space=space, sampler={"name": sampler, "seed": 1}, budget={"trials": 20, "concurrency": 2})
    search_id = stage.submit(spec)
    stage.deliver()
    assert stage.search(search_id).state is SearchState.SUCCEEDED
    tried = [trial.design for trial in stage.trials(search_id)]
    whole = [design for design in tried if "channels/block13.pointwise" not in design]
    assert len(whole) == 1
    pruned = [design for design in tried if design not in whole]
    assert sorted(design["importance/network"] for design in pruned) == ["l1", "l2", "loss"]
