"""Confirming a finalist: a trial is fine-tuned, and scored on images that neither search nor base has seen."""

from __future__ import annotations

from service.db import transaction
from service.finalists.actions import finish_finalist, start_finalist
from service.models import Finalist, Search, Trial
from service.queue import TaskName, send_after_commit
from workers.evaluator import JobName
from workers.workplace import LEASE_S, Claim, Workplace, arguments_of, work

DEADLINE_S = 6 * 3600.0


def confirm_finalist(workplace: Workplace, finalist_id: int) -> None:
    with transaction(workplace.engine) as session:
        attempt = start_finalist(session, finalist_id, workplace.owner, LEASE_S)
        if attempt is None:
            return
        finalist = session.get_one(Finalist, finalist_id)
        trial, search = session.get_one(Trial, finalist.trial_id), session.get_one(Search, finalist.search_id)
        arguments = {**arguments_of(search), "design": trial.design}
    subject = f"{'uniform' if trial.baseline else 'trial'} {trial.number}: "
    claim = Claim(TaskName.CONFIRM, finalist_id, attempt, search.id, subject)
    ending = work(workplace, claim, JobName.CONFIRM, arguments, DEADLINE_S)
    if ending is None:
        return
    with transaction(workplace.engine) as session:
        is_written = finish_finalist(
            session,
            finalist_id,
            attempt,
            ending.state,
            ending.reason,
            values=ending.result.get("values"),
            details=ending.result.get("details"),
            weights_digest=ending.result.get("weights_digest"),
        )
        if is_written:
            send_after_commit(session, TaskName.PLAN, search.id)
