"""The Celery tasks: thin, each calls one function with an id. What is lost here is found again by the reaper."""

from __future__ import annotations

from celery import Celery

from service.queue import TaskName
from workers.bring_tasks import import_network, index_dataset
from workers.confirm import confirm_finalist
from workers.export_task import export_trial
from workers.live_sampler import LiveSamplers
from workers.plan import plan_search
from workers.prepare import prepare_search
from workers.refine_task import refine_trial
from workers.trial import run_trial
from workers.workplace import Workplace


def register_tasks(celery: Celery, workplace: Workplace) -> None:
    """Give the tasks to a Celery app, all working at one workplace."""
    samplers = LiveSamplers(workplace.home / "samplers")

    @celery.task(name=str(TaskName.PREPARE))  # type: ignore[untyped-decorator]
    def prepare(preparation_id: int) -> None:
        prepare_search(workplace, preparation_id)

    @celery.task(name=str(TaskName.PLAN))  # type: ignore[untyped-decorator]
    def plan(search_id: str) -> None:
        plan_search(workplace, samplers, search_id)

    @celery.task(name=str(TaskName.RUN))  # type: ignore[untyped-decorator]
    def run(trial_id: int) -> None:
        run_trial(workplace, trial_id)

    @celery.task(name=str(TaskName.CONFIRM))  # type: ignore[untyped-decorator]
    def confirm(finalist_id: int) -> None:
        confirm_finalist(workplace, finalist_id)

    @celery.task(name=str(TaskName.EXPORT))  # type: ignore[untyped-decorator]
    def export(export_id: str) -> None:
        export_trial(workplace, export_id)

    @celery.task(name=str(TaskName.REFINE))  # type: ignore[untyped-decorator]
    def refine(refinement_id: str) -> None:
        refine_trial(workplace, refinement_id)

    @celery.task(name=str(TaskName.IMPORT))  # type: ignore[untyped-decorator]
    def bring_network(network_id: str) -> None:
        import_network(workplace, network_id)

    @celery.task(name=str(TaskName.INDEX))  # type: ignore[untyped-decorator]
    def bring_dataset(dataset_id: str) -> None:
        index_dataset(workplace, dataset_id)
