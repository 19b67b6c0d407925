"""The life of a trial: added, started, ended. The caller commits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from search_spaces.budgets import Certificate
from search_spaces.design import Design
from search_spaces.objectives import Outcome, Provenance, TrialState
from service import leases
from service.cost_models.actions import add_residual
from service.events.actions import append_event, append_events
from service.measurements.actions import NewMeasurement, record
from service.models import Rung, Search, Trial, utc_now
from service.searches.actions import settle
from service.searches.queries import lock_search
from service.states import EventKind, Obtained, SearchState


@dataclass(frozen=True)
class KnownOutcome:
    """What a trial ends with that nobody has to run.

    Attributes:
        origin: the trial that found it, {search, trial, name}; None where it was told without any work.
    """

    outcome: Outcome
    obtained: Obtained = Obtained.EVALUATED
    origin: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class NewTrial:
    """A design to be tried, unless its outcome is known.

    Attributes:
        key: `design_key`.
        memo: what its sampler wants to have back.
        certificates: what it takes of the limits that need no work.
        outcome_key: None where it cannot be told.
    """

    design: Design
    key: str
    memo: Mapping[str, Any]
    certificates: tuple[Certificate, ...] = ()
    outcome_key: str | None = None
    known: KnownOutcome | None = None


def add_trials(session: Session, search: Search, new: Sequence[NewTrial], *, baseline: bool = False) -> list[Trial]:
    """Add trials with the next numbers, queued or ended; nothing is sent. `search` must be locked.

    Raises:
        sqlalchemy.exc.IntegrityError: the search has a design already.
    """
    last = session.scalar(select(func.max(Trial.number)).where(Trial.search_id == search.id))
    first = 0 if last is None else last + 1
    trials = [_row(search, number, one, baseline) for number, one in enumerate(new, first)]
    session.add_all(trials)
    search.version += 1
    session.flush()
    for trial, one in zip(trials, new, strict=True):
        if one.known is not None:
            _keep_rungs(session, search.id, trial.id, one.known.outcome)
    ended = [_event_data(trial) for trial, one in zip(trials, new, strict=True) if one.known is not None]
    if ended:
        append_events(session, search.id, EventKind.TRIAL, ended)
    return trials


def _row(search: Search, number: int, new: NewTrial, baseline: bool) -> Trial:
    trial = Trial(
        search_id=search.id,
        number=number,
        baseline=baseline,
        state=str(TrialState.QUEUED),
        design=new.design.to_json(),
        design_key=new.key,
        memo=dict(new.memo),
        certificate=[certificate.to_json() for certificate in new.certificates],
        outcome_key=new.outcome_key,
    )
    if new.known is not None:
        _end(search, trial, new.known)
    return trial


def _end(search: Search, trial: Trial, known: KnownOutcome) -> None:
    """End a row that is being added: nobody can have claimed it."""
    search.finished_count += 1
    trial.state, trial.reason = str(known.outcome.state), known.outcome.reason
    trial.values, trial.details = dict(known.outcome.values), dict(known.outcome.details)
    trial.sources = {name: str(source) for name, source in known.outcome.sources.items()}
    trial.finish_number, trial.finished_at = search.finished_count, utc_now()
    trial.obtained = str(known.obtained)
    trial.origin = None if known.origin is None else dict(known.origin)


def start_trial(session: Session, trial_id: int, owner: str, lease_s: float) -> int | None:
    """Claim it; returns the attempt, or None when it is taken, ended, or its search is over."""
    search = _lock(session, trial_id)
    if search is None or search.state not in (SearchState.RUNNING, SearchState.PAUSED):
        return None
    attempt = leases.claim(session, Trial, trial_id, owner, lease_s)
    if attempt is not None:
        _tell(session, trial_id)
    return attempt


def finish_trial(
    session: Session, trial_id: int, attempt: int, outcome: Outcome, measurements: Sequence[NewMeasurement] = ()
) -> bool:
    """Write a trial's outcome, once. False: the lease was lost, and nothing is written.

    A value that is not finite makes the trial a failed one. An outcome may also be CANCELLED here: its supervisor
    has stopped it. A cancelled trial gets no finish number, samplers are not told of it.
    """
    search = _lock(session, trial_id)
    outcome = _sane(outcome)
    if search is None or not leases.finish(
        session,
        Trial,
        trial_id,
        attempt,
        outcome.state,
        outcome.reason,
        values=dict(outcome.values),
        details=dict(outcome.details),
        sources={name: str(source) for name, source in outcome.sources.items()},
        rung=len(outcome.rungs) if outcome.state is TrialState.STOPPED else None,
        expected=dict(outcome.expected) if outcome.state is TrialState.STOPPED else None,
        finish_number=None if outcome.state is TrialState.CANCELLED else search.finished_count + 1,
    ):
        return False
    if outcome.state is not TrialState.CANCELLED:
        search.finished_count += 1
    record(session, measurements, trial_id=trial_id)
    if outcome.state is not TrialState.FAILED:
        _keep_rungs(session, search.id, trial_id, outcome)
    _compare(session, trial_id, outcome)
    _tell(session, trial_id)
    settle(session, search)
    return True


def _keep_rungs(session: Session, search_id: str, trial_id: int, outcome: Outcome) -> None:
    """What later trials are ranked among; a step where it could not be ranked has no values."""
    session.add_all(
        Rung(trial_id=trial_id, number=number, search_id=search_id, values=dict(values))
        for number, values in enumerate(outcome.rungs, start=1)
        if values
    )


def count_work(session: Session, trial_id: int, seconds: float) -> None:
    """Add what evaluators have worked on a trial, whatever came of it, to its own seconds and to its search's."""
    search = _lock(session, trial_id)
    if search is not None:
        search.evaluator_s += seconds
        session.get_one(Trial, trial_id).evaluator_s += seconds
        session.flush()


def _compare(session: Session, trial_id: int, outcome: Outcome) -> None:
    """Keep what was predicted beside what was measured, where both are there."""
    told = outcome.details.get("prediction")
    measured = outcome.values.get(told["metric"]) if told else None
    if told and measured is not None and outcome.sources.get(told["metric"]) == Provenance.MEASURED:
        add_residual(session, trial_id, told, measured)


def _tell(session: Session, trial_id: int) -> None:
    trial = session.get_one(Trial, trial_id, populate_existing=True)
    append_event(session, trial.search_id, EventKind.TRIAL, _event_data(trial))


def _event_data(trial: Trial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trial.state,
        "baseline": trial.baseline,
        "attempt": trial.attempt,
        "values": trial.values,
        "sources": trial.sources,
        "reason": trial.reason,
        "obtained": trial.obtained,
        "origin": trial.origin,
        "rung": trial.rung,
    }


def _sane(outcome: Outcome) -> Outcome:
    bad = sorted(name for name, value in outcome.values.items() if not math.isfinite(value))
    if not bad:
        return outcome
    finite = {name: value for name, value in outcome.values.items() if name not in bad}
    reason = f"{', '.join(bad)}: not a finite number"
    return replace(outcome, state=TrialState.FAILED, values=finite, reason=reason)


def _lock(session: Session, trial_id: int) -> Search | None:
    search_id = session.scalar(select(Trial.search_id).where(Trial.id == trial_id))
    return None if search_id is None else lock_search(session, search_id)
