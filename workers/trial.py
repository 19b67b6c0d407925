"""Running one trial: claim it, have its design evaluated, write the outcome once, and ask for the next plan."""

from __future__ import annotations

from dataclasses import replace

from search_spaces.objectives import Outcome, Provenance, TrialState
from service.db import transaction
from service.measurements.actions import NewMeasurement, measurement_from_json
from service.models import Search, Trial
from service.queue import TaskName, send_after_commit
from service.states import JobState
from service.trials.actions import finish_trial, start_trial
from workers.evaluator import JobName
from workers.foresee import foresee
from workers.workplace import LEASE_S, Claim, Ending, Workplace, arguments_of, work

DEADLINE_S = 3600.0


def run_trial(workplace: Workplace, trial_id: int) -> None:
    with transaction(workplace.engine) as session:
        attempt = start_trial(session, trial_id, workplace.owner, LEASE_S)
        if attempt is None:
            return  # a message that came twice, or too late
        trial = session.get_one(Trial, trial_id)
        search = session.get_one(Search, trial.search_id)
        foresight = foresee(session, search, trial)
        told = None if foresight is None else foresight.to_json()
        arguments = {**arguments_of(search), "design": trial.design, "foresight": told}
    claim = Claim(TaskName.RUN, trial_id, attempt, search.id)
    ending = work(workplace, claim, JobName.EVALUATE, arguments, DEADLINE_S)
    if ending is None:
        return
    with transaction(workplace.engine) as session:
        outcome, measurements = split_measurements(outcome_of(ending))
        if finish_trial(session, trial_id, attempt, outcome, measurements):
            send_after_commit(session, TaskName.PLAN, search.id)


def outcome_of(ending: Ending) -> Outcome:
    if ending.state is JobState.SUCCEEDED:
        found = ending.result
        sources = {name: Provenance(source) for name, source in found["sources"].items()}
        return Outcome(TrialState(found["state"]), found["values"], found["reason"], found["details"], sources)
    if ending.state is JobState.CANCELLED:
        return Outcome(TrialState.CANCELLED)
    return Outcome(TrialState.FAILED, reason=ending.reason, details={"fault": str(ending.fault)})


def split_measurements(outcome: Outcome) -> tuple[Outcome, list[NewMeasurement]]:
    """The measurements as rows of their own, and the outcome without what is long in them."""
    found = [dict(one) for one in outcome.details.get("measurements", ())]
    rows = [measurement_from_json(one) for one in found]
    told = [{name: value for name, value in one.items() if name not in _LONG_PARTS} for one in found]
    return replace(outcome, details={**outcome.details, "measurements": told}), rows


_LONG_PARTS = ("samples", "operators")
