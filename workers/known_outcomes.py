"""What is known of designs already: a design that was tried in the very same way is not tried again.

Any search of this database may have tried it. Its figures are judged anew, by the limits of the search that asks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from search_spaces.known import Sources
from search_spaces.objectives import Outcome, Provenance, TrialState
from search_spaces.outcome_keys import SEEN_SPLITS, Setting, setting_digest
from search_spaces.rungs import worth_at_steps
from search_spaces.spec import Measure, SearchSpec
from service.measurements.conditions import digest_of
from service.models import Device, Search, Trial
from service.states import Obtained
from service.trials.actions import KnownOutcome
from workers.limits import missed_limits

ANSWERING = (TrialState.SUCCEEDED, TrialState.INFEASIBLE)
"""States of trials that may answer. What failed is tried again."""


def setting_of(session: Session, search: Search, spec: SearchSpec) -> str | None:
    """Digest of what the designs of a prepared search are tried in.

    None where too little is known of it, as of searches that an older version prepared: then nothing is reused.
    """
    report = search.base_report or {}
    digests, computed = report.get("splits"), report.get("computed")
    if search.base_key is None or not digests or not computed:
        return None
    fingerprint = ""
    if spec.device is not None:
        device = session.get(Device, spec.device)
        if device is None:
            return None
        fingerprint = device.fingerprint_digest
    splits = {name: digests[name] for name in SEEN_SPLITS}
    setting = Setting(search.base_key, splits, computed["threads"], computed["versions"], fingerprint)
    return setting_digest(spec, Sources.model_validate(search.sources), setting)


def wants_fresh_figures(session: Session, spec: SearchSpec) -> bool:
    """Whether a device with a clock is to be asked of every design: old figures then do not do."""
    if spec.evaluation.measure is not Measure.ALWAYS or spec.device is None:
        return False
    device = session.get(Device, spec.device)
    return device is None or not device.is_simulated


def find_known(session: Session, spec: SearchSpec, keys: Collection[str]) -> dict[str, KnownOutcome]:
    """What trials of any search found, by outcome key, where that decides the trial of this one; one query for all.

    Args:
        session: reading is enough.
        spec: says by which limits they are judged.
        keys: of the designs that are to be tried.
    """
    if not keys or wants_fresh_figures(session, spec):
        return {}
    answering = (Trial.state.in_(ANSWERING), Trial.obtained == Obtained.EVALUATED)
    query = select(Trial, Search.name).join(Search, Search.id == Trial.search_id)
    known: dict[str, KnownOutcome] = {}
    for trial, name in session.execute(query.where(Trial.outcome_key.in_(keys), *answering).order_by(Trial.id)):
        outcome = judge_anew(trial, spec)
        if outcome is not None and is_of_present_device(session, trial.details, spec):
            origin = {"search": trial.search_id, "trial": trial.number, "name": name}
            known.setdefault(str(trial.outcome_key), KnownOutcome(outcome, Obtained.REUSED, origin))
    return known


def judge_anew(trial: Trial, spec: SearchSpec) -> Outcome | None:
    """The outcome of an ended trial under the limits of another search.

    None where its figures do not decide it: some are predicted, or a limit ended it early that is met here.
    """
    sources = {name: Provenance(source) for name, source in trial.sources.items()}
    if Provenance.PREDICTED in sources.values():
        return None
    reason = missed_limits(spec.limits, trial.values)
    if not reason and trial.state != TrialState.SUCCEEDED and not _is_whole(trial, spec):
        return None
    state = TrialState.INFEASIBLE if reason else TrialState.SUCCEEDED
    rungs = worth_at_steps(trial.details.get("rungs", ()), spec.evaluation.steps[:-1], spec.objectives)
    return Outcome(state, trial.values, reason, trial.details, sources, rungs)


def _is_whole(trial: Trial, spec: SearchSpec) -> bool:
    """Whether a trial that missed a limit had been scored by then, and asked all that is wanted here."""
    return "images" in trial.details and spec.judged_metrics <= trial.values.keys()


def is_of_present_device(session: Session, details: Mapping[str, Any], spec: SearchSpec) -> bool:
    """Whether what was measured was measured under the fingerprint that the device has now.

    The key says what it was when the trial was planned; it may have changed before the trial was run.

    Args:
        details: of the trial, or of the finalist.
    """
    device = None if spec.device is None else session.get(Device, spec.device)
    told = details.get("measurements", ())
    return device is None or all(digest_of(one["fingerprint"]) == device.fingerprint_digest for one in told)
