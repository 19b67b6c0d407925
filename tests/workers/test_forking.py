"""A search that begins with what others have found. Real rows and real planning."""

from __future__ import annotations

import json

import pytest

from search_spaces.check import SpecError
from search_spaces.objectives import TrialState
from search_spaces.parse import parse_spec
from service import db
from service.errors import InvalidSpecError
from service.models import Trial
from service.states import Obtained
from tests.workers.invented import (
    NOWHERE,
    TRIALS,
    fork,
    hypervolume,
    make_spec,
    on_sqlite,
    run,
    told,
)


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
