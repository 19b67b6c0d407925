"""Which weights an export takes, through the real task functions, with made-up results."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from service import db
from service.exports.actions import request_export
from service.models import Export, Trial
from service.refinements.actions import request_refinement
from service.searches.queries import get_search
from service.states import JobState
from tests.workers.stage import Stage, invent, make_spec
from workers.evaluator import JobName

SETTINGS = {"epochs": 1.5, "learning_rate": 0.01}


def ask(stage: Stage, trial_id: int) -> str:
    with db.transaction(stage.workplace.engine) as session:
        return request_export(session, session.get_one(Trial, trial_id))[0].id


def refine(stage: Stage, search_id: str, trial_id: int) -> None:
    with db.transaction(stage.workplace.engine) as session:
        request_refinement(session, get_search(session, search_id), session.get_one(Trial, trial_id), SETTINGS)


def weights_told(stage: Stage, export_id: str) -> dict[str, Any]:
    with db.reading(stage.workplace.engine) as session:
        export = session.get_one(Export, export_id)
        assert export.state == JobState.SUCCEEDED
        told: dict[str, Any] = export.report["weights"]
    return told


def test_an_export_tells_whose_weights_it_was_rebuilt_from(stage: Stage) -> None:
    asked: list[str | None] = []
    found: list[tuple[int, str]] = []

    def watch(job: JobName, arguments: dict[str, Any]) -> dict[str, Any]:
        if job is JobName.EXPORT:
            asked.append(arguments["weights_digest"])
            found.append((arguments["found"]["trial"], arguments["found"]["sampler"]))
        return invent(job, arguments)

    with stage.workplace.evaluators.borrow() as evaluator:
        evaluator.result = watch
    search_id = stage.submit(make_spec())
    stage.deliver()
    finalists = {finalist.trial_id for finalist in stage.finalists(search_id)}
    finalist = min(finalists)
    other = next(trial.id for trial in stage.trials(search_id) if trial.id not in finalists)
    trials = {trial.id: trial for trial in stage.trials(search_id)}
    exports = [ask(stage, other), ask(stage, finalist)]
    stage.deliver()
    refine(stage, search_id, finalist)
    stage.deliver()
    exports.append(ask(stage, finalist))
    stage.deliver()
    assert asked == [None, "c" * 64, "e" * 64]
    told = [(trials[one].number, "" if trials[one].baseline else "random") for one in (other, finalist, finalist)]
    assert found == told
    assert [weights_told(stage, one) for one in exports] == [
        {"origin": "searched"},
        {"origin": "confirmed"},
        {"origin": "refined", **SETTINGS},
    ]


def test_an_export_that_waited_while_its_design_was_refined_is_not_done_twice(stage: Stage) -> None:
    search_id = stage.submit(make_spec())
    stage.deliver()
    trial_id = stage.trials(search_id)[0].id
    refine(stage, search_id, trial_id)
    waiting = ask(stage, trial_id)
    stage.deliver(1)
    assert ask(stage, trial_id) == waiting
    stage.deliver()
    assert ask(stage, trial_id) == waiting
    assert weights_told(stage, waiting)["origin"] == "refined"
    with db.reading(stage.workplace.engine) as session:
        assert len(session.scalars(select(Export)).all()) == 1
