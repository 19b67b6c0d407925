"""Trials that go through cheap steps first, on real images: nothing twice, nothing otherwise than without steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import workers.checkpoint
import workers.train
from search_spaces.design import design_from_json
from search_spaces.known import Sources
from search_spaces.objectives import Outcome, TrialState
from search_spaces.pareto import front_indices
from search_spaces.rungs import Standing, objectives_of, rank_among
from search_spaces.spec import SearchSpec
from service import db
from service.models import Rung
from service.states import SearchState
from tests.workers.on_digits import CALIBRATION_IMAGES, DigitsHome, digits_spec, half
from tests.workers.stage import Stage, evaluation, invent, make_spec, make_stage
from tests.workers.test_plan import evaluate_with
from workers.appraise import build
from workers.evaluator import JobName, load_jobs
from workers.growing import Growing
from workers.jobs import evaluate
from workers.live_sampler import make_live_sampler, unheard_trials
from workers.progress import ignore_progress
from workers.tune import TUNINGS
from workers.workbench import set_up

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = [{"score_images": 40}, {"score_images": 80, "finetune_epochs": 0.2}]
IN_FULL = {
    "calibration_images": CALIBRATION_IMAGES,
    "score_images": 150,
    "finetune_epochs": 0.6,
    "finalists": {"top": 0},
}
CLIMBING = IN_FULL | {"rungs": {"keep": 0.4, "least": 2, "steps": STEPS}}
UNBEATABLE = [[1.0, 1.0]]


def try_half(home: DigitsHome, standing: Standing | None = None, progress: Any = ignore_progress, **changes: Any):
    spec = digits_spec(**{"evaluation": CLIMBING} | changes)
    design = half("w8a8")
    return evaluate(spec, Sources(), design, home.key, home.folder, progress, standing=standing)


def leftovers(home: DigitsHome) -> list[Path]:
    folder = home.folder / TUNINGS
    return list(folder.iterdir()) if folder.is_dir() else []


def images_seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each run of a file is given, from now on."""
    import workers.climb

    seen: list[int] = []
    original = workers.climb.run_file

    def run_file(model: bytes, split: Any, *rest: Any) -> np.ndarray:
        seen.append(len(split))
        return original(model, split, *rest)

    monkeypatch.setattr(workers.climb, "run_file", run_file)
    return seen


def test_all_steps_end_where_the_full_evaluation_ends(digits_home):
    whole = try_half(digits_home, evaluation=IN_FULL)
    climbed = try_half(digits_home)
    assert climbed.state is whole.state is TrialState.SUCCEEDED
    assert climbed.values == whole.values
    assert [dict(values).keys() for values in climbed.rungs] == [{"accuracy", "size_bytes"}] * 2
    assert whole.rungs == ()
    assert [step["score_images"] for step in climbed.details["rungs"]] == [40, 80]
    assert climbed.details["images"] == whole.details["images"]
    assert leftovers(digits_home) == []
    json.dumps(climbed.details)


def test_a_candidate_that_pauses_has_the_bits_of_one_that_does_not(digits_home):
    spec = digits_spec(evaluation=CLIMBING | {"quantisation_aware": {"epochs": 0.1}})
    bench = set_up(spec, Sources(), digits_home.key, digits_home.folder)
    whole, _ = build(bench, half("w8a8"), {"stage_s": {}})
    growing = Growing(bench, half("w8a8"), {"stage_s": {}}, ignore_progress)
    *cheap, full = spec.evaluation.steps
    before = [growing.bring_to(step, is_full=False) for step in cheap]
    climbed, model = growing.bring_to(full, is_full=True)
    growing.forget()
    assert climbed.is_rounded
    assert not any(candidate.is_rounded for candidate, _ in before)
    assert len({model, *(file for _, file in before)}) == 3
    for name, array in whole.weights.items():
        assert np.array_equal(climbed.weights[name], array)


def test_a_step_without_training_scores_the_same_file_on_further_images(digits_home, monkeypatch):
    seen = images_seen(monkeypatch)
    rungs = {"least": 2, "steps": [{"score_images": 40}, {"score_images": 90}]}
    asked = IN_FULL | {"finetune_epochs": 0.0}
    climbed = try_half(digits_home, evaluation=asked | {"rungs": rungs})
    assert seen == [40, 50, 60]
    assert climbed.values == try_half(digits_home, evaluation=asked).values


def test_a_trial_behind_the_others_is_stopped_with_the_values_of_its_step(digits_home, monkeypatch):
    seen = images_seen(monkeypatch)
    stopped = try_half(digits_home, Standing([UNBEATABLE * 5, []], [[], []], []))
    assert stopped.state is TrialState.STOPPED
    assert stopped.reason == "place 6 of 6 at step 1 of 3 (40 images, 0 epochs of training): the best 40 % go on"
    assert seen == [40]
    assert "fine_tune" not in stopped.details["stage_s"]
    assert len(stopped.rungs) == 1
    assert stopped.values["accuracy"] == stopped.rungs[0]["accuracy"]
    assert stopped.details["images"]["count"] == 40


def test_a_trial_that_is_foretold_to_add_nothing_is_stopped(digits_home):
    rungs = {"least": 2, "steps": STEPS}
    same = [[[0.5, 9e5], [0.625, 9e5]]] * 2
    better, worse = [[1.0, 1.0]], [[0.0, 1.0]]
    stopped = try_half(digits_home, Standing([[], []], [same, same], better), evaluation=IN_FULL | {"rungs": rungs})
    assert (stopped.state, len(stopped.rungs)) == (TrialState.STOPPED, 1)
    step = "at step 1 of 3 (40 images, 0 epochs of training)"
    assert stopped.reason == f"{step} it is foretold to add nothing to what was evaluated in full"
    here = stopped.rungs[0]
    expected = {"accuracy": min(here["accuracy"] + 0.125, 1.0), "size_bytes": here["size_bytes"]}
    assert stopped.expected == pytest.approx(expected)
    assert "fine_tune" not in stopped.details["stage_s"]
    going = try_half(digits_home, Standing([[], []], [same, same], worse), evaluation=IN_FULL | {"rungs": rungs})
    assert going.state is TrialState.SUCCEEDED


def test_the_second_step_stops_too_and_leaves_no_training_behind(digits_home):
    stopped = try_half(digits_home, Standing([[], UNBEATABLE * 5], [[], []], []))
    assert (stopped.state, len(stopped.rungs)) == (TrialState.STOPPED, 2)
    assert stopped.details["stage_s"]["fine_tune"] > 0
    assert leftovers(digits_home) == []


def test_what_is_too_slow_is_not_trained(digits_home):
    """Neither is it through the rounding; one within the limit is measured once, and ends as without it."""
    too_slow, slow_enough = (
        [{"metric": "latency_s", "max": seconds, "device": "local-cpu"}] for seconds in (1e-9, 60.0)
    )
    for asked in (IN_FULL, IN_FULL | {"finetune_epochs": 0.0, "quantisation_aware": {"epochs": 0.2}}):
        missed = try_half(digits_home, evaluation=asked, limits=too_slow)
        assert missed.state is TrialState.INFEASIBLE
        assert not {"fine_tune", "train_rounded", "score"} & missed.details["stage_s"].keys()
        kept = try_half(digits_home, evaluation=asked, limits=slow_enough)
        assert kept.state is TrialState.SUCCEEDED
        assert [one["metric"] for one in kept.details["measurements"]] == ["latency_s"]
        assert kept.values["accuracy"] == try_half(digits_home, evaluation=asked).values["accuracy"]


def test_a_limit_on_a_score_waits_for_the_full_evaluation_and_one_on_a_cost_does_not(digits_home):
    low = try_half(digits_home, limits=[{"metric": "accuracy", "min": 1.01}])
    assert (low.state, len(low.rungs)) == (TrialState.INFEASIBLE, 2)
    large = try_half(digits_home, limits=[{"metric": "size_bytes", "max": 10.0}])
    assert (large.state, large.rungs) == (TrialState.INFEASIBLE, ())


def test_a_trial_that_was_killed_goes_on_from_its_last_pause(digits_home, monkeypatch):
    monkeypatch.setattr(workers.train, "_PROGRESS_EVERY_S", 0.0)
    whole = try_half(digits_home)
    trained: list[float] = []

    def watch(stage: str, done: float, message: str) -> None:
        if stage == "train":
            trained.append(done)
            if done > 0.5 and len(trained) > 2 and not is_killed:
                is_killed.append(True)
                raise KeyboardInterrupt

    is_killed: list[bool] = []
    with pytest.raises(KeyboardInterrupt):
        try_half(digits_home, progress=watch)
    until_killed = len(trained)
    assert len(leftovers(digits_home)) == 2  # of the pause behind the second step, and of the way on from there
    resumed = try_half(digits_home, progress=watch)
    again = trained[until_killed:]
    paused_at = STEPS[1]["finetune_epochs"] / IN_FULL["finetune_epochs"]  # type: ignore[operator]
    assert again[0] > paused_at - 0.05
    assert again[-1] == 1.0
    assert (resumed.values, resumed.rungs) == (whole.values, whole.rungs)
    assert leftovers(digits_home) == []


# --- whole searches ---------------------------------------------------------------------------------------------


def rank_of(outcome: Outcome, others: list[Any], spec: SearchSpec) -> bool:
    values = objectives_of(outcome.values, spec.objectives)
    assert values is not None
    assert spec.evaluation.rungs is not None
    return rank_among(values, others, spec.objectives).goes_on(spec.evaluation.rungs.keep, spec.evaluation.rungs.least)


def climb_of(accuracy: float, told: dict[str, Any], spec: SearchSpec) -> dict[str, Any]:
    """What an evaluator would say of a design of that accuracy at both of two steps, told what others were worth."""
    values = {"accuracy": accuracy, "size_bytes": 1000.0}
    scored = values | {"f1": accuracy, "macs": 7.0}
    outcome = Outcome(TrialState.SUCCEEDED, values)
    goes_on = told["standing"] is None or rank_of(outcome, told["standing"]["steps"][0], spec)
    state = "succeeded" if goes_on else "stopped"
    expected = {} if goes_on else values | {"accuracy": accuracy + 0.005}
    found: dict[str, Any] = {"state": state, "values": scored, "reason": "", "details": {}, "sources": {}}
    return found | {"rungs": [values], "expected": expected}


@pytest.fixture
def climbing_spec() -> SearchSpec:
    rungs = {"keep": 0.5, "least": 3, "steps": [{"score_images": 50}]}
    return make_spec(budget={"trials": 10}, evaluation=evaluation(top=2) | {"rungs": rungs})


def test_what_others_reached_is_told_and_the_stopped_ones_are_final(stage: Stage, climbing_spec: SearchSpec):
    told: list[Any] = []

    def result(job: JobName, arguments: dict[str, Any]) -> dict[str, Any]:
        if job is not JobName.EVALUATE:
            return invent(job, arguments)
        told.append(arguments["standing"])
        return climb_of(0.9 - 0.01 * len(told), arguments, climbing_spec)

    evaluate_with(stage, result)
    search_id = stage.submit(climbing_spec)
    stage.deliver()
    search, trials = stage.search(search_id), stage.trials(search_id)
    uniform = [trial for trial in trials if trial.baseline]
    assert search.state is SearchState.SUCCEEDED
    # Each is worse than all before it, so that all of the sampler's are stopped, and of the uniform ones none.
    assert {trial.state for trial in uniform} == {TrialState.SUCCEEDED}
    assert told[: len(uniform)] == [None] * len(uniform)
    found = trials[len(uniform) :]
    assert {(trial.state, trial.rung) for trial in found} == {(TrialState.STOPPED, 1)}
    assert len(found) == 10
    assert [len(one["steps"][0]) for one in told[len(uniform) :]] == list(range(len(uniform), len(trials)))
    assert told[-1]["steps"][0][0] == [0.89, 1000.0]
    assert told[-1]["full"] == [[trial.values["accuracy"], 1000.0] for trial in uniform]
    assert told[-1]["pairs"][0] == [[end, end] for end in told[-1]["full"]]
    with db.reading(stage.workplace.engine) as session:
        assert session.query(Rung).count() == len(trials)
        live = make_live_sampler(session, search)
        heard = unheard_trials(session, search_id, live).trials
    told_as = {(trial.state, trial.fidelity) for trial in heard}
    assert told_as == {(TrialState.SUCCEEDED, 1.0), (TrialState.STOPPED, 0.5)}
    # Of a stopped one the score of a cheap step, which nothing foretells, is not told for the one in the end.
    assert {(trial.state, frozenset(trial.values)) for trial in heard} == {
        (TrialState.SUCCEEDED, frozenset({"accuracy", "size_bytes", "f1", "macs"})),
        (TrialState.STOPPED, frozenset({"accuracy", "size_bytes", "macs"})),
    }
    scores = {one.number: one.values["accuracy"] for one in heard}
    assert [scores[trial.number] for trial in uniform] == [trial.values["accuracy"] for trial in uniform]
    assert [scores[trial.number] for trial in found] == [trial.values["accuracy"] + 0.005 for trial in found]
    assert {trial.id for trial in found}.isdisjoint(one.trial_id for one in stage.finalists(search_id))


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2"])
def test_samplers_go_on_beside_stopped_trials(stage: Stage, climbing_spec: SearchSpec, sampler: str):
    def result(job: JobName, arguments: dict[str, Any]) -> dict[str, Any]:
        if job is not JobName.EVALUATE:
            return invent(job, arguments)
        return climb_of(0.5 + 0.01 * (len(str(arguments["design"])) % 17), arguments, climbing_spec)

    evaluate_with(stage, result)
    named = climbing_spec.model_copy(update={"sampler": climbing_spec.sampler.model_copy(update={"name": sampler})})
    search_id = stage.submit(named)
    stage.deliver()
    states = {str(trial.state) for trial in stage.trials(search_id) if not trial.baseline}
    assert states == {"succeeded", "stopped"}
    assert sum(not trial.baseline for trial in stage.trials(search_id)) == 10


def run_for_real(stage: Stage, asked: dict[str, Any]) -> tuple[Any, list[Any]]:
    jobs = load_jobs()

    def result(job: JobName, arguments: dict[str, Any]) -> dict[str, Any]:
        through_json = json.loads(json.dumps(arguments))
        found: dict[str, Any] = json.loads(json.dumps(jobs[job](through_json, stage.workplace.home, ignore_progress)))
        return found

    evaluate_with(stage, result)
    space = {"prune_ratio": {"low": 0.25, "high": 0.75, "step": 0.25}}
    sampler = {"name": "random", "seed": 3}
    spec = digits_spec(space=space, evaluation=asked, sampler=sampler, budget={"trials": 9, "concurrency": 1000})
    search_id = stage.submit(spec)
    stage.deliver()
    return stage.search(search_id), stage.trials(search_id)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_real_search_takes_less_and_finds_the_same(engine, digits_home, monkeypatch):
    """The sampler asks for the same designs whatever they are worth, so that trials compare by number."""
    stage = make_stage(engine, digits_home.folder)
    monkeypatch.setattr("service.queue.send", lambda task, row_id, queue: stage.messages.append((task, row_id)))
    # The second of the two would be answered by the first.
    monkeypatch.setattr("workers.new_trials._found_elsewhere", lambda session, spec, keys: {})
    rungs = {"keep": 0.33, "least": 3, "steps": [{"score_images": 60}, {"score_images": 100, "finetune_epochs": 0.2}]}
    whole, in_full = run_for_real(stage, IN_FULL)
    climbed, by_steps = run_for_real(stage, IN_FULL | {"rungs": rungs})
    assert climbed.state is whole.state is SearchState.SUCCEEDED
    assert [trial.design for trial in by_steps] == [trial.design for trial in in_full]
    stopped = [trial for trial in by_steps if trial.state == TrialState.STOPPED]
    reached = [trial.number for trial in by_steps if trial.state == TrialState.SUCCEEDED]
    assert len(stopped) >= 4
    assert not any(trial.baseline for trial in stopped)
    assert len(reached) + len(stopped) == len(by_steps)
    for number in reached:
        assert by_steps[number].values == in_full[number].values
    objectives = SearchSpec.model_validate(whole.spec).objectives
    fronts = [front_indices([run[number].values for number in reached], objectives) for run in (by_steps, in_full)]
    assert fronts[0] == fronts[1]
    trained = [sum(one.details["stage_s"].get("fine_tune", 0.0) for one in run) for run in (by_steps, in_full)]
    assert trained[0] < 0.8 * trained[1]
    assert climbed.evaluator_s < whole.evaluator_s
    assert design_from_json(by_steps[0].design) == design_from_json(in_full[0].design)
