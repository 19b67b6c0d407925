"""Keeps the samplers of running searches warm between plans. A kept sampler is only a shortcut.

Rows are the truth: a sampler that is not here is made anew and told the whole history. Knows nothing of when to plan.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from search_spaces.check import check_spec
from search_spaces.design import design_from_json
from search_spaces.objectives import TrialState
from search_spaces.pareto import violations
from search_spaces.samplers import Sampler, ToldTrial, make_sampler
from search_spaces.space import Space
from search_spaces.spec import SearchSpec
from service.known import known_for_search
from service.models import Search, Trial
from service.searches.specs import spec_of

KEPT = 8
_TOLD_STATES = (TrialState.SUCCEEDED, TrialState.INFEASIBLE, TrialState.STOPPED, TrialState.FAILED)


@dataclass
class LiveSampler:
    """A search's sampler, with what it works on and the finish number of the last trial it was told.

    Attributes:
        extended_at: of the search when the sampler was made: an extension changes the budget, and what has finished.
    """

    spec: SearchSpec
    space: Space
    sampler: Sampler
    extended_at: datetime | None = None
    told: int = 0


class LiveSamplers:
    """The samplers of the searches planned last, by search. A planner takes one out and puts it back when done."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, LiveSampler] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, session: Session, search: Search) -> LiveSampler:
        """Raises `SpecError` when the spec no longer suits the devices that are known."""
        with self._lock:
            kept = self._kept.pop(search.id, None)
        if kept is not None and kept.extended_at == search.extended_at:
            return kept
        return make_live_sampler(session, search)

    def put_back(self, search_id: str, live: LiveSampler) -> None:
        with self._lock:
            self._kept[search_id] = live
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)


def make_live_sampler(session: Session, search: Search) -> LiveSampler:
    checked = check_spec(spec_of(search), known_for_search(session, search))
    sampler = make_sampler(checked.spec, checked.space)
    return LiveSampler(checked.spec, checked.space, sampler, search.extended_at)


def unheard_trials(session: Session, search_id: str, live: LiveSampler) -> tuple[list[ToldTrial], int]:
    """The trials that finished since the sampler was told last, and the finish number of the last of them."""
    query = (
        select(Trial)
        .where(Trial.search_id == search_id, Trial.finish_number > live.told, Trial.state.in_(_TOLD_STATES))
        .order_by(Trial.finish_number)
    )
    rows: Sequence[Trial] = session.scalars(query).all()
    last = rows[-1].finish_number if rows else None
    return [_told(row, live.spec) for row in rows], last or live.told


def _told(row: Trial, spec: SearchSpec) -> ToldTrial:
    return ToldTrial(
        number=row.number,
        design=design_from_json(row.design),
        state=TrialState(row.state),
        values=row.values,
        violations=violations(row.values, spec.limits),
        memo=row.memo,
        baseline=row.baseline,
        fidelity=1.0 if row.rung is None else row.rung / len(spec.evaluation.steps),
    )
