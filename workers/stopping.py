"""When a search asks for no more trials, and why: wall time, evaluators' time, a front that no longer grows, failures.

Told from rows each time, so that what a late trial changes counts. Knows no sampler and moves no state.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from search_spaces import pareto
from search_spaces.rungs import objectives_of
from search_spaces.spec import PlateauSpec, SearchSpec
from service.models import Search, Trial, utc_now
from service.searches.extensions import evaluator_s_since, wall_time_s_of
from service.states import EndReason, Obtained, TrialState
from service.wording import counted

FAILED_AFTER = 5
"""Trials have to have ended before a share of failures says anything."""

End = tuple[EndReason, str]
"""In one word, and in a sentence for people."""


def too_many_failed(failed: int, ended: int, spec: SearchSpec) -> bool:
    return ended >= FAILED_AFTER and failed > spec.budget.failure_share * ended


def why_no_more(session: Session, search: Search, spec: SearchSpec) -> End | None:
    """Why no trial is to be started, though the budget may have some left; None if they are to go on."""
    budget = spec.budget
    wall_time_s = wall_time_s_of(search, budget)
    if wall_time_s is not None and _is_time_up(search, wall_time_s):
        return EndReason.WALL_TIME, "the wall time is spent"
    worked_s = evaluator_s_since(search)
    if budget.evaluator_s is not None and worked_s >= budget.evaluator_s:
        return EndReason.EVALUATOR_TIME, f"evaluators have worked {worked_s:,.0f} s, which is the budget"
    if budget.plateau is not None:
        return _plateau(session, search, spec, budget.plateau)
    return None


def _is_time_up(search: Search, limit_s: float) -> bool:
    began = search.extended_at or search.started_at
    return began is not None and utc_now() - began > timedelta(seconds=limit_s)


def _plateau(session: Session, search: Search, spec: SearchSpec, plateau: PlateauSpec) -> End | None:
    """Whether the front has grown by less than a share over the last trials that the sampler asked for.

    Both hypervolumes are against one reference point, a tenth beyond the worst of the uniform baseline; without a
    uniform design that met the limits, of the trials before the last ones. Nothing found yet is no plateau.
    """
    first = _first_of_the_last(session, search, plateau.trials)
    if first is None:
        return None
    columns = (Trial.finish_number, Trial.baseline, Trial.values)
    feasible = select(*columns).where(Trial.search_id == search.id, Trial.state == TrialState.SUCCEEDED)
    rows = session.execute(feasible).all()
    before = [values for number, baseline, values in rows if baseline or number < first]
    front = [before[place] for place in pareto.front_indices(before, spec.objectives)]
    if not front:
        return None
    last = [values for number, baseline, values in rows if not baseline and number >= first]
    uniform = [values for _, baseline, values in rows if baseline and objectives_of(values, spec.objectives)]
    reference = pareto.reference_point(uniform or before, spec.objectives)
    was, is_now = (pareto.hypervolume(values, spec.objectives, reference) for values in (front, [*front, *last]))
    if was <= 0 or is_now >= (1 + plateau.improvement) * was:
        return None
    grown, trials = 100 * (is_now / was - 1), counted(plateau.trials, "trial")
    message = f"the hypervolume of the front has grown by {grown:.2g} % over the last {trials}"
    return EndReason.PLATEAU, f"{message}, less than {100 * plateau.improvement:g} %"


def _first_of_the_last(session: Session, search: Search, count: int) -> int | None:
    """The finish number of the first of the last trials of the sampler; None while there are not so many.

    A search that was extended is to have as many new ones before it is judged again.
    """
    finished = select(Trial.finish_number).where(
        Trial.search_id == search.id,
        Trial.baseline.is_(False),
        Trial.obtained != Obtained.INHERITED,
        Trial.finish_number.is_not(None),
    )
    if search.extended_at is not None:
        finished = finished.where(Trial.finished_at >= search.extended_at)
    return session.scalar(finished.order_by(Trial.finish_number.desc()).offset(count - 1).limit(1))
