"""What the succeeded trials of a search come to so far: the front, the baseline's, and the range of what was found.

A trial that has succeeded never changes, and finish numbers are counted in the order of commits. So what was read once
is kept in this process, and a search of fifty thousand trials costs no more than what has finished since. Sessions that
may write read everything: what they see may yet be rolled back.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from search_spaces import pareto
from search_spaces.objectives import Direction
from search_spaces.spec import ObjectiveSpec, SearchSpec
from service.db import is_read_only
from service.models import Search, Trial
from service.states import TrialState

Values = Mapping[str, float]

KEPT = 64


@dataclass(frozen=True, slots=True)
class Judged:
    """A trial that has all objectives; `values` are these."""

    id: int
    number: int
    baseline: bool
    values: Values


@dataclass(frozen=True)
class FoundSoFar:
    """Up to one moment.

    Attributes:
        front: members, by number.
        baseline: members of the uniform designs' own front, by number.
        worst, best: of each objective over all trials, as points; empty before there is any.
        seen: the last finish number that is in it.
    """

    front: Sequence[Judged] = ()
    baseline: Sequence[Judged] = ()
    worst: Values = field(default_factory=dict)
    best: Values = field(default_factory=dict)
    seen: int = 0

    def reference_point(self, objectives: Sequence[ObjectiveSpec]) -> dict[str, float]:
        """As `pareto.reference_point` tells it of all trials; there must be one."""
        return pareto.reference_point([self.worst, self.best], objectives)


_kept: OrderedDict[str, FoundSoFar] = OrderedDict()
_lock = threading.Lock()


def found_so_far(session: Session, search: Search) -> FoundSoFar:
    """How the search stands, with all that this session sees."""
    if not is_read_only(session):
        return _go_on(session, search, FoundSoFar())
    with _lock:
        before = _kept.get(search.id, FoundSoFar())
    found = _go_on(session, search, before)
    with _lock:
        _kept[search.id] = found
        _kept.move_to_end(search.id)
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    return found


def _go_on(session: Session, search: Search, before: FoundSoFar) -> FoundSoFar:
    objectives = SearchSpec.model_validate(search.spec).objectives
    names = [str(objective.metric) for objective in objectives]
    # The database takes them out: of all that there is of a trial few numbers are needed.
    columns = [Trial.values[name].as_float() for name in names]
    rows = session.execute(
        select(Trial.finish_number, Trial.id, Trial.number, Trial.baseline, *columns)
        .where(Trial.search_id == search.id, Trial.finish_number > before.seen, Trial.state == TrialState.SUCCEEDED)
        .order_by(Trial.finish_number)
    ).all()
    new = [row for row in rows if None not in row[4:]]
    if not new:
        return before
    table = np.array([row[4:] for row in new], dtype=np.float64)
    uniform = [place for place, row in enumerate(new) if row[3]]
    # What others among them dominate is on no front with more: of thousands few become objects.
    front = [_judged(new[place], names) for place in pareto.front_rows(table, objectives)]
    baseline = [_judged(new[uniform[place]], names) for place in pareto.front_rows(table[uniform], objectives)]
    ends = (table.min(axis=0).tolist(), table.max(axis=0).tolist())
    points: list[Values] = [dict(zip(names, end, strict=True)) for end in ends]
    points += [point for point in (before.worst, before.best) if point]
    return FoundSoFar(
        front=_best([*before.front, *front], objectives),
        baseline=_best([*before.baseline, *baseline], objectives),
        worst=_extreme(points, objectives, is_best=False),
        best=_extreme(points, objectives, is_best=True),
        seen=rows[-1].finish_number or before.seen,
    )


def _judged(row: Sequence[Any], names: Sequence[str]) -> Judged:
    return Judged(row[1], row[2], row[3], dict(zip(names, row[4:], strict=True)))


def _best(judged: Sequence[Judged], objectives: Sequence[ObjectiveSpec]) -> list[Judged]:
    if not judged:
        return []
    members = [judged[index] for index in pareto.front_indices([one.values for one in judged], objectives)]
    return sorted(members, key=lambda one: one.number)


def _extreme(points: Sequence[Values], objectives: Sequence[ObjectiveSpec], *, is_best: bool) -> dict[str, float]:
    extreme = {}
    for objective in objectives:
        is_largest = (objective.direction is Direction.MAXIMIZE) == is_best
        column = [point[objective.metric] for point in points]
        extreme[str(objective.metric)] = max(column) if is_largest else min(column)
    return extreme
