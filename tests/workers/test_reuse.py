"""Nothing is evaluated twice: what other searches know answers. Real rows and real planning."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from search_spaces.capabilities import DeviceCapabilities
from search_spaces.design import design_from_json
from search_spaces.known import Sources
from search_spaces.objectives import Metric
from search_spaces.rungs import Standing
from search_spaces.spec import SearchSpec
from service import db
from service.devices.actions import announce, this_process
from service.models import Search
from service.states import Obtained, SearchState
from service.trials.queries import progress_of, standing_of
from tests.workers.invented import (
    PREPARED,
    TRIALS,
    Invented,
    fork,
    hypervolume,
    make_spec,
    on_sqlite,
    run,
    told,
)
from tests.workers.on_digits import digits_document
from tests.workers.stage import MadeUpEvaluator, Stage, evaluation
from workers.evaluator import JobName, load_jobs
from workers.evaluator_process import Evaluators
from workers.jobs import evaluate
from workers.progress import ignore_progress

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
