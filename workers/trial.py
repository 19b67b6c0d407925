"""Running one trial: claim it, have its design evaluated, write the outcome once, and ask for the next plan."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Any

from search_spaces.objectives import Outcome, Provenance, TrialState
from service.db import reading, transaction
from service.measurements.actions import NewMeasurement, measurement_from_json
from service.models import Search, Trial
from service.queue import TaskName, send_after_commit
from service.states import JobState
from service.trials.actions import count_work, finish_trial, start_trial
from service.trials.queries import standing_of
from workers.evaluator import JobName
from workers.foresee import foresee
from workers.workplace import LEASE_S, Claim, Ending, Workplace, arguments_of, work

_log = logging.getLogger(__name__)

DEADLINE_S = 3600.0


def run_trial(workplace: Workplace, trial_id: int) -> None:
    with transaction(workplace.engine) as session:
        attempt = start_trial(session, trial_id, workplace.owner, LEASE_S)
        if attempt is None:
            return  # a message that came twice, or too late
        trial = session.get_one(Trial, trial_id)
        search = session.get_one(Search, trial.search_id)
        arguments = {**arguments_of(search), "design": trial.design}
    arguments["standing"] = _standing(workplace, trial_id)
    arguments["foresight"] = _foresee(workplace, trial_id)
    claim = Claim(TaskName.RUN, trial_id, attempt, search.id)
    begun_s = time.monotonic()
    ending = work(workplace, claim, JobName.EVALUATE, arguments, DEADLINE_S)
    with transaction(workplace.engine) as session:
        count_work(session, trial_id, time.monotonic() - begun_s)
        if ending is None:
            return
        outcome, measurements = split_measurements(outcome_of(ending))
        if finish_trial(session, trial_id, attempt, outcome, measurements):
            send_after_commit(session, TaskName.PLAN, search.id)


def _standing(workplace: Workplace, trial_id: int) -> dict[str, Any] | None:
    """What others were worth at each step and in the end, as JSON; None for a trial that goes through all of them."""
    with reading(workplace.engine) as session:
        trial = session.get_one(Trial, trial_id)
        standing = None if trial.baseline else standing_of(session, session.get_one(Search, trial.search_id))
    return None if standing is None else standing.to_json()


def _foresee(workplace: Workplace, trial_id: int) -> dict[str, Any] | None:
    """What the cost model says, as JSON. A trial that it cannot be asked about is measured: nothing is lost by that."""
    try:
        with reading(workplace.engine) as session:
            trial = session.get_one(Trial, trial_id)
            foresight = foresee(session, session.get_one(Search, trial.search_id), trial)
    except Exception:
        _log.exception("trial %s is measured, since it cannot be predicted", trial_id)
        return None
    return None if foresight is None else foresight.to_json()


def outcome_of(ending: Ending) -> Outcome:
    if ending.state is JobState.SUCCEEDED:
        found = ending.result
        sources = {name: Provenance(source) for name, source in found["sources"].items()}
        rungs, expected = tuple(found.get("rungs", ())), found.get("expected", {})
        told = (TrialState(found["state"]), found["values"], found["reason"], found["details"])
        return Outcome(*told, sources, rungs, expected)
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
