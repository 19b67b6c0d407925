"""The whole flow of a search in one process: a real database and the real task functions, delivered by hand.

Only the evaluator is made up. Messages are kept in a list, so that a test may lose them or deliver them twice.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, select

from search_spaces.check import check_spec
from search_spaces.spec import SearchSpec
from service import db
from service.known import known_for
from service.models import Finalist, Search, Trial
from service.queue import MODEL_OF, TaskName
from service.searches.actions import create_search
from workers.bring_tasks import import_network, index_dataset
from workers.confirm import confirm_finalist
from workers.evaluator import JobName
from workers.evaluator_process import Evaluators
from workers.export_task import export_trial
from workers.live_sampler import LiveSamplers
from workers.plan import plan_search
from workers.prepare import prepare_search
from workers.refine_task import refine_trial
from workers.trial import run_trial
from workers.workplace import Workplace


def evaluation(top: int) -> dict[str, Any]:
    return {"calibration_images": 32, "score_images": 100, "finalists": {"top": top}}


def make_spec(**changes: Any) -> SearchSpec:
    """A small search on digits, with no device; parts are replaced whole, `trials` and the like in the budget."""
    spec: dict[str, Any] = {
        "name": "staged",
        "network": {"family": "mobilenet_v1", "width": 0.25, "input": [1, 8, 8], "stem_stride": 1},
        "dataset": {"name": "digits"},
        "space": {
            "prune_ratio": {"low": 0.0, "high": 0.5, "step": 0.25},
            "precision": {"choices": ["fp32", "w8a8"], "scope": "block"},
        },
        "objectives": [
            {"metric": "accuracy", "direction": "maximize"},
            {"metric": "size_bytes", "direction": "minimize"},
        ],
        "sampler": {"name": "random", "seed": 1},
        "evaluation": evaluation(top=2),
        "budget": {"trials": 5},
    }
    return SearchSpec.model_validate(spec | changes)


def invent(job: JobName, arguments: dict[str, Any]) -> dict[str, Any]:
    """Results that depend on the design alone."""
    design = arguments.get("design", {})
    small = sum(1 for value in design.values() if value == "w8a8") + len(design)
    values = {"accuracy": 0.9 - 0.001 * small, "size_bytes": 300_000.0 - 1000 * small}
    if job is JobName.PREPARE:
        return {"base_key": "b" * 64, "accuracy": 0.95, "budget_bases": {}}
    if job is JobName.CONFIRM:
        return {"values": values, "weights_digest": "c" * 64, "details": {}}
    if job is JobName.EXPORT:
        report = {"reported": {}}
        return {"artifact_digest": "d" * 64, "filename": "x.onnx", "size_bytes": 10, "files": [], "report": report}
    if job is JobName.REFINE:
        better = values | {"accuracy": values["accuracy"] + 0.01}
        return {"before": values, "values": better, "weights_digest": "e" * 64, "details": {}}
    if job is JobName.IMPORT:
        return {"base_key": "a" * 64, "network": {}, "report": {"class_names": []}}
    if job is JobName.INDEX:
        return {"digest": arguments["archives"][-1], "info": {}, "report": {}, "previews": []}
    return {"state": "succeeded", "values": values, "reason": "", "details": {}, "sources": {}}


class MadeUpEvaluator:
    """Stands in for `Evaluator`: the same `run`, in this process."""

    used_at = 0.0

    def __init__(self, result: Callable[[JobName, dict[str, Any]], dict[str, Any]]) -> None:
        self.result = result

    def run(self, job, arguments, *, watch, deadline_s, progress):
        watch()
        progress("stage", 0.5, "half")
        return self.result(job, arguments)

    def kill(self) -> None:
        pass


@dataclass
class Stage:
    """A workplace with its messages. `result` may be replaced to make jobs fail."""

    workplace: Workplace
    samplers: LiveSamplers = field(default_factory=LiveSamplers)
    messages: list[tuple[TaskName, Any]] = field(default_factory=list)
    delivered: list[tuple[TaskName, Any]] = field(default_factory=list)

    def submit(self, spec: SearchSpec) -> str:
        with db.transaction(self.workplace.engine) as session:
            return create_search(session, check_spec(spec, known_for(session, spec)), None, "x" * 64).id

    def deliver(self, count: int | None = None) -> None:
        """Deliver waiting messages, in order, and those that come of it."""
        while self.messages and count != 0:
            self.deliver_one(self.messages.pop(0))
            count = None if count is None else count - 1

    def deliver_one(self, message: tuple[TaskName, Any]) -> None:
        task, row_id = message
        self.delivered.append(message)
        if task is TaskName.PLAN:
            plan_search(self.workplace, self.samplers, row_id)
        else:
            TASKS[task](self.workplace, row_id)

    def search(self, search_id: str) -> Search:
        with db.reading(self.workplace.engine) as session:
            return session.get_one(Search, search_id)

    def trials(self, search_id: str) -> list[Trial]:
        return self._rows(select(Trial).where(Trial.search_id == search_id).order_by(Trial.number))

    def finalists(self, search_id: str) -> list[Finalist]:
        return self._rows(select(Finalist).where(Finalist.search_id == search_id).order_by(Finalist.id))

    def age(self, seconds: float) -> None:
        """Let time pass for leases and messages."""
        back = timedelta(seconds=seconds)
        with db.transaction(self.workplace.engine) as session:
            for search in session.scalars(select(Search)):
                search.updated_at -= back
                search.started_at = search.started_at and search.started_at - back
                search.planner_expires_at = search.planner_expires_at and search.planner_expires_at - back
            for model in MODEL_OF.values():
                for row in session.scalars(select(model)):
                    row.created_at -= back
                    row.published_at = row.published_at and row.published_at - back
                    row.lease_expires_at = row.lease_expires_at and row.lease_expires_at - back

    def _rows(self, query: Any) -> list[Any]:
        with db.reading(self.workplace.engine) as session:
            return list(session.scalars(query))


TASKS = {
    TaskName.PREPARE: prepare_search,
    TaskName.RUN: run_trial,
    TaskName.CONFIRM: confirm_finalist,
    TaskName.EXPORT: export_trial,
    TaskName.REFINE: refine_trial,
    TaskName.IMPORT: import_network,
    TaskName.INDEX: index_dataset,
}


def make_stage(engine: Engine, folder: Path) -> Stage:
    evaluators = Evaluators(lambda: MadeUpEvaluator(invent))
    return Stage(Workplace(engine=engine, home=folder, owner="stage", evaluators=evaluators))
