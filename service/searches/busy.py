"""What keeps a search from going on that lacks nothing but a free worker: told from rows, for people.

Workers and the reaper look, see `service.devices.actions.wake_waiting`; what they find is in `Search.waiting_for`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from service.models import (
    Claimable,
    Finalist,
    ImportedNetwork,
    OwnDataset,
    Preparation,
    Refinement,
    Search,
    Trial,
    utc_now,
)
from service.queue import QUEUE_OF, TaskName, queue_of
from service.states import JobState, SearchState

GOING_ON = (SearchState.QUEUED, SearchState.PREPARING, SearchState.RUNNING, SearchState.CONFIRMING)
HELD_UP_AFTER_S = 10.0
"""A worker that is free takes less to begin."""

_STEPS: dict[TaskName, type[Preparation | Trial | Finalist]] = {
    TaskName.PREPARE: Preparation,
    TaskName.RUN: Trial,
    TaskName.CONFIRM: Finalist,
}
_MOST_NAMED, _MOST_READ = 2, 50


def find_held_up(session: Session) -> list[str]:
    """Ids of the searches whose next step has been sent for a while, and not begun; they do not say so yet."""
    quiet = Search.updated_at < utc_now() - timedelta(seconds=HELD_UP_AFTER_S)
    going_on = select(Search.id).where(Search.state.in_(GOING_ON), Search.waiting_for == "", quiet)
    ids = session.scalars(going_on.order_by(Search.id)).all()
    return [search_id for search_id in ids if _next_step(session, search_id) is not None]


def held_up_by(session: Session, search: Search) -> str:
    """What the workers do instead of a search's next step; empty when it runs, has none, or nobody does anything."""
    step = _next_step(session, search.id) if search.state in GOING_ON else None
    if step is None:
        return ""
    doing = list(_others(session, queue_of(session, *step)))
    if not doing:
        return ""
    more = len(doing) - _MOST_NAMED
    named = ", ".join(doing[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
    return f"the workers are busy: {named}. It goes on after that, or at once with another: espalier worker"


def _next_step(session: Session, search_id: str) -> tuple[TaskName, int] | None:
    """What has been sent, while nothing runs."""
    sent = None
    for task, model in _STEPS.items():
        rows = session.execute(
            select(model.id, model.state).where(
                model.search_id == search_id,
                (model.state == JobState.RUNNING)
                | ((model.state == JobState.QUEUED) & model.published_at.is_not(None)),
            )
        ).all()
        if any(state == JobState.RUNNING for _, state in rows):
            return None
        sent = (task, rows[0][0]) if rows else sent
    return sent


def _others(session: Session, queue: str) -> Iterator[str]:
    """What live workers do that may be the ones of a queue: refinements, which take longest, first."""
    common = str(QUEUE_OF[TaskName.RUN])
    for task, query, words in _work_of_all():
        for row_id, *names in session.execute(query.limit(_MOST_READ)):
            own = queue_of(session, task, row_id)
            if own == queue or common in (own, queue):  # many a worker has the common queue and those of its devices
                yield words.format(*names)


def _work_of_all() -> list[tuple[TaskName, Select[Any], str]]:
    refinement = _of_search(Refinement, Trial.number).join(Trial, Trial.id == Refinement.trial_id)
    return [
        (TaskName.REFINE, refinement, "refining trial {} of {!r}"),
        (TaskName.PREPARE, _of_search(Preparation), "preparing {!r}"),
        (TaskName.CONFIRM, _of_search(Finalist), "confirming a design of {!r}"),
        (TaskName.RUN, _of_search(Trial), "trying a design of {!r}"),
        (TaskName.IMPORT, _running(ImportedNetwork, ImportedNetwork.name), "importing the network {!r}"),
        (TaskName.INDEX, _running(OwnDataset, OwnDataset.name), "reading the data set {!r}"),
    ]


def _of_search(model: type[Preparation | Trial | Finalist | Refinement], *columns: Any) -> Select[Any]:
    return _running(model, *columns, Search.name).join(Search, Search.id == model.search_id)


def _running(model: type[Claimable], *columns: Any) -> Select[Any]:
    is_live = model.lease_expires_at > utc_now()
    return select(model.id, *columns).where(model.state == JobState.RUNNING, is_live).order_by(model.started_at)
