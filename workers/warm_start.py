"""What a search begins with of what other searches have found, where it is of the same: see `SearchSpec.warm_start`.

A fork begins so with its parent. The sampler learns of these trials, and the front has them; no budget is spent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from search_spaces.design import design_from_json
from search_spaces.objectives import TrialState
from search_spaces.outcome_keys import outcome_key
from search_spaces.space import Space
from search_spaces.spec import SearchSpec
from service.events.actions import append_event
from service.models import Search, Trial
from service.searches.actions import warn
from service.states import EventKind, Obtained
from service.trials.actions import KnownOutcome, NewTrial, add_trials
from service.wording import counted
from workers.known_outcomes import ANSWERING, judge_anew, setting_of, wants_fresh_figures


@dataclass
class _Haul:
    """What comes of one search: the trials to add, and how many do not come, and why."""

    new: list[NewTrial] = field(default_factory=list)
    present: int = 0
    tried_otherwise: int = 0
    undecided: int = 0
    stopped: int = 0

    @property
    def reasons(self) -> Iterator[str]:
        if self.tried_otherwise:
            yield f"{self.tried_otherwise} of another network, data set, evaluation, device or space"
        if self.undecided:
            yield f"{self.undecided} with figures that are predicted, or too few for the limits here"
        if self.stopped:
            yield f"{self.stopped} that were stopped at a cheap step"


def take_over(session: Session, search: Search, spec: SearchSpec, space: Space) -> None:
    """Add the trials that other searches have ended, judged by the limits of this one. `search` must be locked."""
    setting = setting_of(session, search, spec)
    for source_id in dict.fromkeys(spec.warm_start):
        source = session.get_one(Search, source_id)
        if wants_fresh_figures(session, spec):
            warn(session, search, [f"nothing of {source.name!r} is taken over: evaluation.measure is always"])
            continue
        ended = select(Trial).where(Trial.search_id == source_id, Trial.state.in_((*ANSWERING, TrialState.STOPPED)))
        trials = session.scalars(ended.order_by(Trial.finish_number)).all()
        haul = _sort_out(trials, source, setting, spec, space, _known_keys(session, search.id))
        add_trials(session, search, haul.new)
        _tell(session, search, source, haul, len(trials))


def _known_keys(session: Session, search_id: str) -> set[str]:
    return set(session.scalars(select(Trial.design_key).where(Trial.search_id == search_id)))


def _sort_out(
    trials: Sequence[Trial], source: Search, setting: str | None, spec: SearchSpec, space: Space, known: set[str]
) -> _Haul:
    haul = _Haul()
    for trial in trials:
        if trial.state == TrialState.STOPPED:
            haul.stopped += 1
            continue
        design = design_from_json(trial.design)
        key = None if setting is None else outcome_key(setting, spec.evaluation, design, trial.design_key)
        outcome = judge_anew(trial, spec)
        if key is None or key != trial.outcome_key or not space.contains(design):
            haul.tried_otherwise += 1
        elif trial.design_key in known:
            haul.present += 1
        elif outcome is None:
            haul.undecided += 1
        else:
            ending = KnownOutcome(outcome, Obtained.INHERITED, _origin(trial, source))
            haul.new.append(NewTrial(design, trial.design_key, {}, outcome_key=key, known=ending))
    return haul


def _origin(trial: Trial, source: Search) -> dict[str, Any]:
    """Of the trial that was evaluated: what was taken over once keeps its origin."""
    return trial.origin or {"search": source.id, "trial": trial.number, "name": source.name}


def _tell(session: Session, search: Search, source: Search, haul: _Haul, ended: int) -> None:
    taken = len(haul.new) + haul.present
    message = f"{taken} of {counted(ended, 'ended trial')} of {source.name!r} are taken over"
    reasons = list(haul.reasons)
    if reasons:
        warn(session, search, [f"{message}; left out are {' and '.join(reasons)}"])
    else:
        append_event(session, search.id, EventKind.NOTE, {"message": message})
