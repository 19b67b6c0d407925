"""The front of a search, found from its rows. It is never stored; see `service.trials.found_so_far`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from search_spaces import pareto
from search_spaces.spec import ObjectiveSpec, SearchSpec
from service.models import Finalist, Search, Trial
from service.states import JobState
from service.trials.found_so_far import Judged, found_so_far
from service.trials.queries import WITHOUT_DETAILS

Member = tuple[Trial, Finalist | None]


@dataclass(frozen=True)
class Front:
    """The feasible trials that no other dominates, and those of the uniform baseline alone beside them.

    Both hypervolumes are against the same reference point, so they compare.

    Attributes:
        knee: number of the member that is the best compromise; None when the front is empty.
    """

    members: Sequence[Member]
    baseline: Sequence[Member]
    hypervolume: float
    baseline_hypervolume: float
    reference_point: Mapping[str, float]
    knee: int | None


def find_front(session: Session, search: Search) -> Front:
    """Judge every succeeded trial of the search. Empty fronts have hypervolume 0 and no reference point."""
    objectives = SearchSpec.model_validate(search.spec).objectives
    found = found_so_far(session, search)
    if not found.front:
        return Front((), (), 0.0, 0.0, {}, None)
    reference = found.reference_point(objectives)
    knee = pareto.knee([one.values for one in found.front], objectives)
    rows = _load_members(session, {one.id for one in (*found.front, *found.baseline)})
    return Front(
        members=[rows[one.id] for one in found.front],
        baseline=[rows[one.id] for one in found.baseline],
        hypervolume=_hypervolume(found.front, objectives, reference),
        baseline_hypervolume=_hypervolume(found.baseline, objectives, reference),
        reference_point=reference,
        knee=None if knee is None else found.front[knee].number,
    )


def front_values(session: Session, search: Search, *, baseline_only: bool) -> list[Mapping[str, float]]:
    """The objectives' values of the members so far of the front, or of the uniform baseline's own."""
    names = [str(objective.metric) for objective in SearchSpec.model_validate(search.spec).objectives]
    found = found_so_far(session, search)
    members = found.baseline if baseline_only else found.front
    return [{name: one.values[name] for name in names} for one in members]


def list_finalists(session: Session, search_id: str) -> list[Member]:
    """All finalists, in order of their trials' numbers."""
    query = select(Trial, Finalist).join(Finalist, Finalist.trial_id == Trial.id).where(Trial.search_id == search_id)
    rows = session.execute(query.options(*WITHOUT_DETAILS).order_by(Trial.number))
    return [(trial, finalist) for trial, finalist in rows]


def compare_confirmed(search: Search, finalists: Sequence[Member]) -> tuple[float, float] | None:
    """Hypervolumes of the confirmed designs: of those the sampler proposed, of the uniform ones; None without both.

    Unlike the search's own figures these are on images that no choice was made by.
    """
    objectives = SearchSpec.model_validate(search.spec).objectives
    confirmed = [
        Judged(trial.id, trial.number, trial.baseline, finalist.values)
        for trial, finalist in finalists
        if finalist is not None and finalist.state == JobState.SUCCEEDED
    ]
    found = [one for one in confirmed if not one.baseline]
    uniform = [one for one in confirmed if one.baseline]
    if not found or not uniform:
        return None
    reference = pareto.reference_point([one.values for one in confirmed], objectives)
    return (
        _hypervolume(found, objectives, reference),
        _hypervolume(uniform, objectives, reference),
    )


def _load_members(session: Session, ids: set[int]) -> dict[int, Member]:
    query = select(Trial, Finalist).outerjoin(Finalist, Finalist.trial_id == Trial.id).where(Trial.id.in_(ids))
    return {trial.id: (trial, finalist) for trial, finalist in session.execute(query.options(*WITHOUT_DETAILS))}


def _hypervolume(
    judged: Sequence[Judged], objectives: Sequence[ObjectiveSpec], reference: Mapping[str, float]
) -> float:
    return pareto.hypervolume([one.values for one in judged], objectives, reference) if judged else 0.0
