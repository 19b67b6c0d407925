"""Searches whose results are made up, in known settings: what is done to rows shows by what was evaluated."""

from __future__ import annotations

from typing import Any

import pytest

from search_spaces.check import check_spec
from search_spaces.spec import SearchSpec
from service import db
from service.known import known_for
from service.models import Event, Search
from service.searches import actions
from service.searches.extensions import Extension, extend
from service.searches.forks import fork_spec
from service.searches.queries import lock_search
from service.states import SearchState
from service.trials.fronts import find_front
from tests.workers.stage import Stage, evaluation, invent
from tests.workers.stage import make_spec as make_staged_spec
from workers.evaluator import FaultKind, JobName
from workers.evaluator_process import JobError

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
