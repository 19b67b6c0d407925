"""The life of a search: created, moved from state to state, ended. The caller commits.

Every function that takes a `Search` wants it locked by `lock_search` in the same transaction.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from search_spaces.check import Checked
from search_spaces.choose_sampler import choose_sampler
from service.errors import IdempotencyKeyReusedError, StateConflictError
from service.events.actions import append_event
from service.models import Finalist, Preparation, Search, SearchWork, Trial, utc_now
from service.queue import TaskName, send_after_commit
from service.searches.queries import lock_search
from service.states import SEARCH_TRANSITIONS, EndReason, EventKind, JobState, SearchState

WORK: tuple[type[SearchWork], ...] = (Preparation, Trial, Finalist)
"""The rows that are a search's own work. Exports are not: they outlive it."""


def create_search(session: Session, checked: Checked, idempotency_key: str | None, body_digest: str) -> Search:
    """Store a checked spec, and have it prepared, unless its device is not there yet."""
    search = Search(
        id=str(uuid.uuid4()),
        name=checked.spec.name,
        state=SearchState.QUEUED,
        spec=checked.spec.model_dump(mode="json"),
        sources=checked.sources.model_dump(),
        budgets=[one.model_dump(mode="json") for one in checked.budgets],
        sampler=asdict(choose_sampler(checked.spec, checked.space)),
        idempotency_key=idempotency_key,
        body_digest=body_digest,
        warnings=list(checked.warnings),
        waiting_for=checked.waiting_for,
        event_count=0,
        version=0,
    )
    session.add(search)
    session.flush()
    append_event(session, search.id, EventKind.STATE, {"state": str(search.state), "reason": checked.waiting_for})
    if not checked.waiting_for:
        send_for_preparation(session, search)
    return search


def repeat_of(session: Session, idempotency_key: str | None, body_digest: str) -> Search | None:
    """The search that an earlier request with this key made, if there was one.

    Raises:
        IdempotencyKeyReusedError: that request had another body.
    """
    if idempotency_key is None:
        return None
    search = session.scalars(select(Search).where(Search.idempotency_key == idempotency_key)).one_or_none()
    if search is not None and search.body_digest != body_digest:
        raise IdempotencyKeyReusedError(f"it made the search {search.id}; use a new key for a new search")
    return search


def send_for_preparation(session: Session, search: Search) -> None:
    """Have a search prepared that waits for nothing any more."""
    preparation = Preparation(search_id=search.id)
    session.add(preparation)
    session.flush()
    send_after_commit(session, TaskName.PREPARE, preparation.id)


def move(session: Session, search: Search, to_state: SearchState, reason: str = "") -> None:
    """Change the state and say so in the history.

    Raises:
        StateConflictError: the state cannot follow the present one.
    """
    if to_state not in SEARCH_TRANSITIONS[search.state]:
        raise conflict(search, to_state)
    enter(session, search, to_state, reason)


def enter(session: Session, search: Search, to_state: SearchState, reason: str = "") -> None:
    """As `move`, whatever the present state is: for who has looked at it."""
    now = utc_now()
    search.state = to_state
    search.activity = None
    if to_state.is_over:
        search.waiting_for = ""
    if to_state is SearchState.PREPARING and search.started_at is None:
        search.started_at = now
    if to_state is SearchState.RUNNING:
        search.end_reason, search.end_message = None, ""
    if to_state.is_final:
        search.finished_at = now
    ended = {} if search.end_reason is None else {"end_reason": search.end_reason}
    append_event(session, search.id, EventKind.STATE, {"state": str(to_state), "reason": reason, **ended})


def note_end(search: Search, why: EndReason, message: str) -> None:
    """Say why no more trials are asked for. What ends a search later goes before what ended its trials."""
    search.end_reason, search.end_message = str(why), message


def cancel(session: Session, search: Search) -> None:
    """Stop a search. It is `cancelling` until nothing runs for it any more.

    Raises:
        StateConflictError: it has already succeeded or failed.
    """
    if search.state in (SearchState.CANCELLING, SearchState.CANCELLED):
        return
    note_end(search, EndReason.CANCELLED, "it was cancelled")
    move(session, search, SearchState.CANCELLING)
    settle(session, search)


def pause(session: Session, search: Search) -> None:
    """Add no more trials; those that run end in peace.

    Raises:
        StateConflictError: there is nothing left to pause.
    """
    if search.state is SearchState.PAUSED:
        return
    resume_to = search.state
    move(session, search, SearchState.PAUSED)
    search.resume_to = resume_to


def resume(session: Session, search: Search) -> None:
    """Go on where `pause` stopped. A search that goes on anyway is left alone.

    Raises:
        StateConflictError: it is over.
    """
    if search.state is not SearchState.PAUSED:
        if search.state.is_over:
            raise conflict(search, SearchState.RUNNING)
        return
    resume_to = search.resume_to or SearchState.QUEUED
    search.resume_to = None
    move(session, search, resume_to)
    if resume_to is SearchState.RUNNING:
        send_after_commit(session, TaskName.PLAN, search.id)
        return
    waiting = select(Preparation.id).where(Preparation.search_id == search.id, Preparation.state == JobState.QUEUED)
    for preparation_id in session.scalars(waiting).all():
        send_after_commit(session, TaskName.PREPARE, preparation_id)


def fail(session: Session, search: Search, problem: dict[str, Any], why: EndReason = EndReason.FAILED) -> None:
    """End a search that cannot go on. What still runs for it is stopped by its supervisors.

    Raises:
        StateConflictError: it is over.
    """
    search.problem = problem
    note_end(search, why, str(problem.get("detail") or problem.get("title", "")))
    cancel_queued(session, search.id)
    move(session, search, SearchState.FAILED, str(problem.get("detail", "")))


def settle(session: Session, search: Search) -> None:
    """If a search is being cancelled: drop what is queued, and end it once nothing runs."""
    if search.state is not SearchState.CANCELLING:
        return
    cancel_queued(session, search.id)
    if not any(_count_running(session, model, search.id) for model in WORK):
        move(session, search, SearchState.CANCELLED)


def report_progress(session: Session, search_id: str, stage: str, share: float, message: str) -> None:
    """Tell how far a long step is; `share` is from 0 to 1. A search that is over takes no notice."""
    search = lock_search(session, search_id)
    if search.state.is_over:
        return
    search.activity = {"stage": stage, "share": share, "message": message}
    append_event(session, search_id, EventKind.PROGRESS, search.activity)


def warn(session: Session, search: Search, warnings: Sequence[str]) -> None:
    """Add to what people are warned of."""
    search.warnings = [*search.warnings, *warnings]
    for warning in warnings:
        append_event(session, search.id, EventKind.NOTE, {"message": warning})


def conflict(search: Search, wanted: SearchState) -> StateConflictError:
    allowed = sorted(str(state) for state in SEARCH_TRANSITIONS[search.state])
    detail = f"a search that is {search.state} cannot become {wanted}"
    return StateConflictError(detail, extra={"state": str(search.state), "allowed": allowed})


def cancel_queued(session: Session, search_id: str) -> None:
    """Drop what waits for a search that is over."""
    for model in WORK:
        session.execute(
            update(model)
            .where(model.search_id == search_id, model.state == JobState.QUEUED)
            .values(state=str(JobState.CANCELLED), finished_at=utc_now())
            .execution_options(synchronize_session=False)
        )


def _count_running(session: Session, model: type[SearchWork], search_id: str) -> int:
    running = select(func.count()).where(model.search_id == search_id, model.state == JobState.RUNNING)
    return session.scalar(running) or 0
