"""Nothing is evaluated twice: across searches, in forks, and when a search is extended. Real rows and real planning."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from search_spaces.capabilities import DeviceCapabilities
from search_spaces.check import SpecError, check_spec
from search_spaces.design import design_from_json
from search_spaces.known import Sources
from search_spaces.objectives import Metric, TrialState
from search_spaces.parse import parse_spec
from search_spaces.rungs import Standing
from search_spaces.spec import SearchSpec
from service import db
from service.devices.actions import announce, this_process
from service.errors import InvalidSpecError, StateConflictError
from service.known import known_for
from service.models import Event, Measurement, Search, Trial
from service.searches import actions
from service.searches.extensions import EMPTY_FRONT, Extension, extend
from service.searches.forks import fork_spec
from service.searches.queries import lock_search
from service.states import EndReason, JobState, Obtained, SearchState
from service.trials.fronts import find_front
from service.trials.queries import progress_of, standing_of
from tests.workers.on_digits import digits_document
from tests.workers.stage import MadeUpEvaluator, Stage, evaluation, invent
from tests.workers.stage import make_spec as make_staged_spec
from workers.evaluator import FaultKind, JobName, load_jobs
from workers.evaluator_process import Evaluators, JobError
from workers.jobs import evaluate
from workers.live_sampler import LiveSamplers
from workers.progress import ignore_progress

PREPARED = {
    "splits": {"train": "t", "calibrate": "c", "score": "s", "confirm": "o", "test": "e"},
    "computed": {"threads": 1, "versions": {"torch": "2"}},
}
TRIALS = 3
NOWHERE = "00000000-0000-0000-0000-000000000000"


on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def make_spec(**changes: Any) -> SearchSpec:
    """Four uniform designs and three of the sampler's: each search of a test is to take a moment only."""
    lean = {
        "space": {"prune_ratio": {"low": 0.0, "high": 0.5, "step": 0.5}, "precision": {"choices": ["fp32", "w8a8"]}},
        "evaluation": evaluation(top=1),
        "budget": {"trials": TRIALS},
    }
    return make_staged_spec(**(lean | changes))


class Invented:
    """Made-up results of designs, which are noted, and of a base in a known setting."""

    def __init__(self, **prepared: Any) -> None:
        self.prepared: dict[str, Any] = PREPARED | prepared
        self.result: dict[str, Any] = {}
        self.fault = False
        self.tried: list[dict[str, Any]] = []

    def __call__(self, job: JobName, arguments: dict[str, Any]) -> dict[str, Any]:
        found = invent(job, arguments)
        if job is JobName.PREPARE:
            return found | self.prepared
        if job is JobName.EVALUATE:
            self.tried.append(arguments["design"])
            if self.fault:
                raise JobError(FaultKind.CRASHED, "it broke")
            more = self.result | {"values": found["values"] | self.result.get("values", {})}
            return found | more
        return found


@pytest.fixture
def invented(stage: Stage) -> Invented:
    result = Invented()
    with stage.workplace.evaluators.borrow() as evaluator:
        evaluator.result = result
    return result


def run(stage: Stage, spec: SearchSpec) -> str:
    search_id = stage.submit(spec)
    stage.deliver()
    assert stage.search(search_id).state is SearchState.SUCCEEDED
    return search_id


def fork(stage: Stage, parent_id: str, **changes: Any) -> str:
    with db.transaction(stage.workplace.engine) as session:
        parent = session.get_one(Search, parent_id)
        spec = fork_spec(parent, changes)
        checked = check_spec(spec, known_for(session, spec, parent.sources))
        return actions.create_search(session, checked, None, "").id


def go_on(stage: Stage, search_id: str, trials: int, key: str | None = None, **more: Any) -> None:
    with db.transaction(stage.workplace.engine) as session:
        extend(session, lock_search(session, search_id), Extension(trials, **more), key, "x")


def hypervolume(stage: Stage, search_id: str) -> float:
    with db.reading(stage.workplace.engine) as session:
        return find_front(session, session.get_one(Search, search_id)).hypervolume


def told(stage: Stage, search_id: str, kind: str) -> list[dict[str, Any]]:
    with db.reading(stage.workplace.engine) as session:
        return [one.data for one in session.query(Event).filter_by(search_id=search_id, kind=kind).order_by(Event.seq)]


# --- answered from the rows -------------------------------------------------------------------------------------


def test_the_same_spec_again_evaluates_nothing_and_says_where_from(stage, invented):
    first = run(stage, make_spec())
    evaluated = len(invented.tried)
    second = run(stage, make_spec(name="again"))
    before, after = stage.trials(first), stage.trials(second)
    assert evaluated == len(before) == len(invented.tried)
    assert [trial.design for trial in after] == [trial.design for trial in before]
    assert [trial.values for trial in after] == [trial.values for trial in before]
    assert [trial.baseline for trial in after] == [trial.baseline for trial in before]
    assert {trial.obtained for trial in after} == {Obtained.REUSED}
    assert [trial.origin for trial in after] == [
        {"search": first, "trial": trial.number, "name": "staged"} for trial in before
    ]
    assert [one["origin"]["trial"] for one in told(stage, second, "trial")] == [trial.number for trial in before]
    assert [trial.finish_number for trial in after] == list(range(1, len(after) + 1))
    with db.reading(stage.workplace.engine) as session:
        progress = progress_of(session, [session.get_one(Search, second)])[second]
    assert (progress.reused, progress.done, progress.inherited) == (len(after), len(after), 0)
    assert hypervolume(stage, second) == hypervolume(stage, first)


@on_sqlite
def test_what_was_reused_answers_with_the_trial_that_was_evaluated(stage, invented):
    first = run(stage, make_spec())
    run(stage, make_spec())
    third = run(stage, make_spec())
    assert {trial.origin["search"] for trial in stage.trials(third)} == {first}


@on_sqlite
@pytest.mark.parametrize(
    ("prepared", "changes"),
    [
        ({"base_key": "a" * 64}, {}),
        ({"splits": PREPARED["splits"] | {"score": "other"}}, {}),
        ({"splits": PREPARED["splits"] | {"train": "other"}}, {}),
        ({"computed": {"threads": 2, "versions": {"torch": "2"}}}, {}),
        ({"computed": {"threads": 1, "versions": {"torch": "3"}}}, {}),
        ({"computed": None}, {}),
        ({}, {"recipe": {"epochs": 2}}),
        ({}, {"evaluation": evaluation(top=1) | {"reconstruct": "none"}}),
        ({}, {"evaluation": evaluation(top=1) | {"importance": "l2"}}),
        ({}, {"evaluation": evaluation(top=1) | {"finetune_epochs": 1}}),
    ],
    ids=str,
)
def test_nothing_is_reused_where_anything_differs_that_may_matter(stage, invented, prepared, changes):
    run(stage, make_spec())
    evaluated = len(invented.tried)
    invented.prepared |= prepared
    second = run(stage, make_spec(**changes))
    assert {trial.obtained for trial in stage.trials(second)} == {Obtained.EVALUATED}
    assert len(invented.tried) == evaluated + len(stage.trials(second))


@on_sqlite
def test_what_matters_only_afterwards_keeps_nothing_from_being_reused(stage, invented):
    run(stage, make_spec())
    evaluated = len(invented.tried)
    run(stage, make_spec(name="other", evaluation=evaluation(top=2), sampler={"name": "random", "seed": 1}))
    assert len(invented.tried) == evaluated


@on_sqlite
def test_figures_are_judged_by_the_limits_of_who_asks(stage, invented):
    first = run(stage, make_spec())
    evaluated = len(invented.tried)
    bound = sorted(trial.values["accuracy"] for trial in stage.trials(first))[-3]
    second = run(stage, make_spec(limits=[{"metric": "accuracy", "min": bound}]))
    trials = stage.trials(second)
    assert all((trial.state == "succeeded") == (trial.values["accuracy"] >= bound) for trial in trials)
    assert all("below the limit" in trial.reason for trial in trials if trial.state == "infeasible")
    assert {trial.state for trial in trials} == {"succeeded", "infeasible"}
    assert len(invented.tried) == evaluated
    # A miss is a miss in the next search as well, and where there is no limit it was ended too early to answer.
    run(stage, make_spec(limits=[{"metric": "accuracy", "min": bound}]))
    assert len(invented.tried) == evaluated


@on_sqlite
def test_what_a_limit_ended_early_is_tried_where_there_is_none(stage, invented):
    invented.result = {"state": "infeasible", "reason": "accuracy is below", "values": {"accuracy": 0.1}}
    limited = make_spec(limits=[{"metric": "accuracy", "min": 0.5}])
    run(stage, limited)
    evaluated = len(invented.tried)
    run(stage, limited)
    assert len(invented.tried) == evaluated
    invented.result = {}
    free = run(stage, make_spec())
    assert len(invented.tried) == evaluated + len(stage.trials(free))


@on_sqlite
def test_what_missed_a_limit_once_all_was_known_answers_without_it(stage, invented):
    invented.result = {"details": {"images": {"split": "score"}}}
    first = run(stage, make_spec())
    bound = sorted(trial.values["accuracy"] for trial in stage.trials(first))[-3]
    limited = run(stage, make_spec(name="limited", limits=[{"metric": "accuracy", "min": bound}]))
    assert "infeasible" in {trial.state for trial in stage.trials(limited)}
    evaluated = len(invented.tried)
    free = fork(stage, limited, limits=[])
    stage.deliver()
    inherited = [trial for trial in stage.trials(free) if trial.obtained == Obtained.INHERITED]
    assert {trial.state for trial in inherited} == {"succeeded"}
    assert len(inherited) == len([trial for trial in stage.trials(limited) if not trial.baseline])
    assert len(invented.tried) == evaluated + TRIALS


@on_sqlite
def test_failed_and_predicted_trials_answer_nothing(stage, invented):
    invented.result = {"sources": {"accuracy": "predicted"}}
    run(stage, make_spec())
    evaluated = len(invented.tried)
    invented.result = {}
    run(stage, make_spec())
    assert len(invented.tried) == 2 * evaluated


LOCAL_CPU = DeviceCapabilities(
    name="local-cpu",
    description="here",
    precisions=("fp32", "w8a8"),
    metrics=(Metric.LATENCY_S,),
    fingerprint={"cpu": "one"},
)
ON_CPU = [
    {"metric": "accuracy", "direction": "maximize"},
    {"metric": "latency_s", "direction": "minimize", "device": "local-cpu"},
]


def announce_cpu(stage: Stage, **fingerprint: str) -> None:
    with db.transaction(stage.workplace.engine) as session:
        announce(session, LOCAL_CPU.model_copy(update={"fingerprint": fingerprint}), this_process())


@on_sqlite
def test_a_device_that_has_changed_is_asked_again(stage, invented):
    invented.result = {"values": {"latency_s": 0.001}, "sources": {"latency_s": "measured"}}
    announce_cpu(stage, cpu="one")
    run(stage, make_spec(objectives=ON_CPU))
    evaluated = len(invented.tried)
    run(stage, make_spec(objectives=ON_CPU))
    assert len(invented.tried) == evaluated
    announce_cpu(stage, cpu="two")
    run(stage, make_spec(objectives=ON_CPU))
    assert len(invented.tried) == 2 * evaluated


@on_sqlite
def test_figures_of_another_fingerprint_than_the_one_planned_with_are_not_reused(stage, invented):
    """The device has changed between a trial's planning and its run."""
    invented.result = {"values": {"latency_s": 0.001}, "sources": {"latency_s": "measured"}}
    announce_cpu(stage, cpu="one")
    first = run(stage, make_spec(objectives=ON_CPU))
    evaluated = len(invented.tried)
    with db.transaction(stage.workplace.engine) as session:
        for trial in stage.trials(first):
            row = session.get_one(type(trial), trial.id)
            row.details = {"measurements": [{"metric": "latency_s", "fingerprint": {"cpu": "two"}}]}
    run(stage, make_spec(objectives=ON_CPU))
    assert len(invented.tried) == 2 * evaluated


@on_sqlite
def test_a_spec_that_wants_every_design_measured_gets_that(stage, invented):
    invented.result = {"values": {"latency_s": 0.001}, "sources": {"latency_s": "measured"}}
    announce_cpu(stage, cpu="one")
    spec = make_spec(objectives=ON_CPU, evaluation=evaluation(top=1) | {"measure": "always"})
    first = run(stage, spec)
    evaluated = len(invented.tried)
    second = fork(stage, first)
    stage.deliver()
    assert {trial.obtained for trial in stage.trials(second)} == {Obtained.EVALUATED}
    assert len(invented.tried) == 2 * evaluated
    assert "nothing of 'staged' is taken over: evaluation.measure is always" in stage.search(second).warnings


@on_sqlite
def test_on_real_images_the_answer_is_what_an_evaluation_finds(stage, digits_home):
    """The whole of it: base, designs and confirmation by the real jobs, and the same again from rows."""
    threads, jobs = torch.get_num_threads(), load_jobs()
    tried: list[dict[str, Any]] = []

    def work(job: JobName, arguments: dict[str, Any]) -> dict[str, Any]:
        if job is JobName.EVALUATE:
            tried.append(arguments["design"])
        result = jobs[job](arguments, digits_home.folder, ignore_progress)
        return dict(json.loads(json.dumps(result, default=float)))

    evaluators = Evaluators(lambda: MadeUpEvaluator(work))
    stage.workplace = replace(stage.workplace, home=digits_home.folder, evaluators=evaluators)
    space = {"prune_ratio": {"low": 0.0, "high": 0.5, "step": 0.5}}
    budget = {"trials": 2, "concurrency": 1000}
    spec = SearchSpec.model_validate(digits_document(space=space, budget=budget, sampler={"name": "random"}))
    try:
        first, evaluated = run(stage, spec), len(tried)
        second = run(stage, spec)
        assert (len(tried), evaluated) == (evaluated, len(stage.trials(first)))
        (*_, last) = stage.trials(second)
        anew = evaluate(spec, Sources(), design_from_json(last.design), digits_home.key, digits_home.folder)
        assert last.values == dict(anew.values)
        assert last.details["images"] == anew.details["images"]
        other = run(stage, SearchSpec.model_validate(digits_document(space=space, budget=budget, recipe={"epochs": 1})))
        assert len(tried) == evaluated + len(stage.trials(other))
    finally:
        torch.set_num_threads(threads)


@on_sqlite
def test_what_was_reused_is_what_new_trials_are_ranked_among(stage, invented):
    """As in a search of its own; a step that differs was not seen, and one objective more was not told."""
    values = {"accuracy": 0.5, "size_bytes": 900.0}
    steps = [{"score_images": 20, "finetune_epochs": 0.0}, {"score_images": 50, "finetune_epochs": 0.0}]
    invented.result = {
        "rungs": [values, values | {"accuracy": 0.6}],
        "details": {"rungs": [step | {"values": values | more} for step, more in zip(steps, SCORED, strict=True)]},
    }
    climbing = evaluation(top=1) | {"rungs": {"least": 2, "steps": steps}}
    first = run(stage, make_spec(evaluation=climbing))
    second = run(stage, make_spec(evaluation=climbing, budget={"trials": 1}))
    reused = [trial.number for trial in stage.trials(second) if trial.obtained == Obtained.REUSED]
    assert len(reused) >= 4
    assert standing(stage, second).steps == [one[: len(reused)] for one in standing(stage, first).steps]
    otherwise = climbing | {"rungs": {"least": 2, "steps": [{"score_images": 30}, steps[1]]}}
    third = run(stage, make_spec(evaluation=otherwise, budget={"trials": 1}))
    assert list(map(len, standing(stage, third).steps)) == [0, len(reused)]


SCORED = ({}, {"accuracy": 0.6})


def standing(stage: Stage, search_id: str) -> Standing:
    with db.reading(stage.workplace.engine) as session:
        found = standing_of(session, session.get_one(Search, search_id))
    assert found is not None
    return found


# --- finalists ---------------------------------------------------------------------------------------------------


def confirmations(stage: Stage, invented: Invented) -> list[dict[str, Any]]:
    """The designs that are confirmed by a job from here on."""
    confirmed: list[dict[str, Any]] = []

    def note(job: JobName, arguments: dict[str, Any]) -> dict[str, Any]:
        if job is JobName.CONFIRM:
            confirmed.append(arguments["design"])
        return invented(job, arguments)

    with stage.workplace.evaluators.borrow() as evaluator:
        evaluator.result = note
    return confirmed


def finalists(**settings: Any) -> dict[str, Any]:
    usual = evaluation(top=1)
    return usual | {"finalists": usual["finalists"] | settings}


@on_sqlite
def test_what_was_confirmed_in_the_same_way_is_not_confirmed_again(stage, invented):
    confirmed = confirmations(stage, invented)
    first = run(stage, make_spec())
    known, jobs = stage.finalists(first), len(confirmed)
    assert jobs == len(known) == 2
    for second in (run(stage, make_spec(name="again")), run(stage, make_spec(name="and again"))):
        assert len(confirmed) == jobs
        (uniform, found) = stage.finalists(second)
        assert [(one.values, one.sources, one.weights_digest) for one in (uniform, found)] == [
            (one.values, one.sources, one.weights_digest) for one in known
        ]
        assert {one.details["origin"]["search"] for one in (uniform, found)} == {first}
        assert len([one for one in told(stage, second, "finalist") if one["state"] == "succeeded"]) == 2
    parent = stage.search(first)
    forked = fork(stage, first, name="fork")
    stage.deliver()
    assert parent.state is stage.search(forked).state is SearchState.SUCCEEDED
    inherited = {trial.id for trial in stage.trials(forked) if trial.obtained != Obtained.EVALUATED}
    assert {one.trial_id for one in stage.finalists(forked) if "origin" in one.details} <= inherited


@on_sqlite
def test_those_of_more_finalists_are_confirmed_that_are_new(stage, invented):
    confirmed = confirmations(stage, invented)
    run(stage, make_spec())
    second = run(stage, make_spec(evaluation=finalists(top=3)))
    fresh = [one for one in stage.finalists(second) if "origin" not in one.details]
    assert len(confirmed) == 2 + len(fresh)
    assert len(fresh) == len(stage.finalists(second)) - 2 > 0


@on_sqlite
def test_finalists_that_are_treated_otherwise_or_scored_on_other_images_are_confirmed_anew(stage, invented):
    confirmed = confirmations(stage, invented)
    run(stage, make_spec())
    assert len(confirmed) == 2
    run(stage, make_spec(evaluation=finalists(finetune_epochs=3.5)))
    assert len(confirmed) == 4
    invented.prepared = PREPARED | {"splits": PREPARED["splits"] | {"confirm": "others"}}
    run(stage, make_spec(name="other images"))
    assert len(confirmed) == 6
    invented.prepared = PREPARED
    run(stage, make_spec(name="the first images"))
    assert len(confirmed) == 6


# --- extended ---------------------------------------------------------------------------------------------------


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
    go_on(stage, search_id, 5, wall_time_s=10.0)
    assert stage.search(search_id).spec["budget"]["wall_time_s"] == 10.0


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


# --- forked, and begun with others ------------------------------------------------------------------------------


def test_a_fork_begins_with_what_its_search_has_found(stage, invented):
    parent = run(stage, make_spec())
    evaluated = len(invented.tried)
    found = [trial for trial in stage.trials(parent) if not trial.baseline]
    child = fork(stage, parent, name="child", budget={"trials": 2})
    stage.deliver(1)
    assert len(invented.tried) == evaluated
    stage.deliver()
    trials = stage.trials(child)
    inherited = [trial for trial in trials if trial.obtained == Obtained.INHERITED]
    assert [trial.design for trial in inherited] == [trial.design for trial in found]
    assert [trial.origin for trial in inherited] == [
        {"search": parent, "trial": trial.number, "name": "staged"} for trial in found
    ]
    assert {trial.obtained for trial in trials if trial.baseline} == {Obtained.REUSED}
    own = [trial for trial in trials if trial.obtained == Obtained.EVALUATED]
    assert len(own) == len(invented.tried) - evaluated == 2
    assert hypervolume(stage, child) >= hypervolume(stage, parent)
    assert not any("taken over" in warning for warning in stage.search(child).warnings)
    assert f"{len(stage.trials(parent))} of {len(stage.trials(parent))} ended trials of 'staged' are taken over" in [
        one["message"] for one in told(stage, child, "note")
    ]


def test_what_is_inherited_is_judged_by_the_limits_of_the_fork(stage, invented):
    parent = run(stage, make_spec())
    bound = sorted(trial.values["accuracy"] for trial in stage.trials(parent))[-3]
    child = fork(stage, parent, limits=[{"metric": "accuracy", "min": bound}])
    stage.deliver()
    taken = [trial for trial in stage.trials(child) if trial.obtained != Obtained.EVALUATED]
    assert len(taken) == len(stage.trials(parent))
    assert all((trial.state == "succeeded") == (trial.values["accuracy"] >= bound) for trial in taken)
    # The limits taken away again, nothing says how good those would have been that missed them for something else.
    grandchild = fork(stage, child, limits=[])
    stage.deliver()
    inherited = [trial for trial in stage.trials(grandchild) if trial.obtained == Obtained.INHERITED]
    assert all(trial.state == "succeeded" for trial in inherited)
    assert {trial.origin["search"] for trial in inherited} <= {parent, child}
    assert "too few for the limits here" in stage.search(grandchild).warnings[-1]


@on_sqlite
def test_what_was_tried_otherwise_is_left_out_and_counted(stage, invented):
    parent = run(stage, make_spec())
    count = len(stage.trials(parent))
    child = fork(stage, parent, evaluation={"reconstruct": "none"})
    stage.deliver()
    assert {trial.obtained for trial in stage.trials(child)} == {Obtained.EVALUATED}
    assert stage.search(child).warnings[-1] == (
        f"0 of {count} ended trials of 'staged' are taken over; left out are {count} of another network, data set, "
        "evaluation, device or space"
    )


@on_sqlite
def test_what_was_stopped_at_a_cheap_step_is_left_out_and_counted(stage, invented):
    parent = run(stage, make_spec())
    (*_, last) = stage.trials(parent)
    with db.transaction(stage.workplace.engine) as session:
        session.get_one(Trial, last.id).state = TrialState.STOPPED
    child = fork(stage, parent)
    stage.deliver()
    count = len(stage.trials(parent))
    assert stage.search(child).warnings[-1] == (
        f"{count - 1} of {count} ended trials of 'staged' are taken over; "
        "left out are 1 that were stopped at a cheap step"
    )


@on_sqlite
def test_a_search_can_begin_with_several_others(stage, invented):
    one = run(stage, make_spec())
    two = run(stage, make_spec(sampler={"name": "random", "seed": 2}))
    known = {json.dumps(trial.design, sort_keys=True) for each in (one, two) for trial in stage.trials(each)}
    evaluated = len(invented.tried)
    third = run(stage, make_spec(warm_start=[one, two], sampler={"name": "tpe", "seed": 3}))
    assert len(invented.tried) == evaluated + TRIALS
    assert len(stage.trials(third)) == len(known) + TRIALS


@on_sqlite
def test_a_search_that_is_not_there_is_a_fault_at_its_place(stage, invented):
    with pytest.raises(SpecError) as refused:
        stage.submit(make_spec(warm_start=[NOWHERE]))
    assert [fault.pointer for fault in refused.value.faults] == ["/warm_start/0"]
    document = make_spec().model_dump(mode="json") | {"warm_start": ["here"]}
    with pytest.raises(SpecError, match="whole id of a search"):
        parse_spec(document)


@on_sqlite
@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"space": {"prune_ratio": {"high": 0.75}}}, "/space/prune_ratio/high"),
        ({"space": {"precision": None}}, "/space/precision"),
        ({"network": {"width": 0.5}}, "/network/width"),
        ({"dataset": {"name": "fashion_mnist"}}, "/dataset/name"),
        ({"recipe": {"epochs": 2}}, "/recipe/epochs"),
    ],
    ids=str,
)
def test_a_fork_of_another_space_is_refused_with_the_place(stage, invented, changes, pointer):
    parent = stage.submit(make_spec())
    with pytest.raises(InvalidSpecError) as refused:
        fork(stage, parent, **changes)
    assert [fault.pointer for fault in refused.value.faults] == [pointer]
