"""Who may work on a row, until when. The same rules for every `Claimable` table.

A claim is one conditional UPDATE: of many that try, one wins. It counts the row's `attempt` up, and that number
fences everything later: renewing and finishing are refused when somebody else has claimed the row since, or when the
reaper has taken it back. So a worker that was thought dead cannot overwrite what came after it.

Times are those of the machines that call; their clocks may differ by seconds, leases should last tens of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from service.machine import machine_name
from service.models import (
    Claimable,
    Export,
    Finalist,
    ImportedNetwork,
    OwnDataset,
    Preparation,
    Refinement,
    Search,
    SearchWork,
    Trial,
    utc_now,
)
from service.states import JobState

CLAIMABLE: tuple[type[Claimable], ...] = (
    Preparation,
    Trial,
    Finalist,
    Export,
    Refinement,
    ImportedNetwork,
    OwnDataset,
)
MAX_ATTEMPTS = 5  # more than an unlucky row loses to deaths that are not its fault; a poison row still ends


@dataclass(frozen=True)
class Expired:
    """Rows whose worker has not renewed its lease.

    Attributes:
        requeued: ids of those that are queued again, and need a message.
        exhausted: (id, attempt) of those that have taken too many workers along. They are still running and are to be
            ended as failed, by the same functions as any other failure; that attempt number lets them.
    """

    requeued: list[Any]
    exhausted: list[tuple[Any, int]]


def claim(session: Session, model: type[Claimable], row_id: Any, owner: str, lease_s: float) -> int | None:
    """Take a queued row; returns its attempt number, or None when it is not there to be taken."""
    _lock_search(session, model, row_id)
    now = utc_now()
    return session.execute(
        update(model)
        .where(model.id == row_id, model.state == JobState.QUEUED)
        .values(
            state=str(JobState.RUNNING),
            attempt=model.attempt + 1,
            lease_owner=owner,
            lease_expires_at=now + timedelta(seconds=lease_s),
            started_at=now,
        )
        .returning(model.attempt)
        .execution_options(synchronize_session=False)
    ).scalar_one_or_none()


def renew(session: Session, model: type[Claimable], row_id: Any, attempt: int, lease_s: float) -> bool:
    """Prolong a lease; False when it was lost, and the work is to be stopped."""
    # One row in a transaction of its own: nothing to lock in order.
    return _update_claimed(session, model, row_id, attempt, lease_expires_at=utc_now() + timedelta(seconds=lease_s))


def tell_activity(
    session: Session, model: type[Claimable], row_id: Any, attempt: int, activity: dict[str, Any]
) -> bool:
    """Note how far the work on a row is, in its column `activity`; False when the lease was lost."""
    return _update_claimed(session, model, row_id, attempt, activity=activity)


def finish(
    session: Session, model: type[Claimable], row_id: Any, attempt: int, state: str, reason: str = "", **columns: Any
) -> bool:
    """End a row with its results; False when the lease was lost, and nothing is written."""
    _lock_search(session, model, row_id)
    return _update_claimed(
        session,
        model,
        row_id,
        attempt,
        state=str(state),
        reason=reason,
        lease_owner=None,
        lease_expires_at=None,
        finished_at=utc_now(),
        **columns,
    )


def release(session: Session, model: type[Claimable], row_id: Any, attempt: int, *, counts: bool) -> bool:
    """Put a row back into the queue; it needs a message again.

    `counts` says whether the attempt is used up: not when a healthy worker is told to stop. The one who releases is
    the only one who knows the attempt's number, so that the next claim may have it again.
    """
    return _put_back(session, model, row_id, attempt, counts=counts)


def requeue_expired(session: Session, model: type[Claimable], max_attempts: int = MAX_ATTEMPTS) -> Expired:
    """Put rows with an expired lease back into the queue, unless they were tried too often."""
    now = utc_now()
    expired = (model.state == JobState.RUNNING) & (model.lease_expires_at < now)
    # In the order in which everybody locks searches.
    order = (model.search_id, model.id) if issubclass(model, SearchWork) else (model.id,)
    rows = session.execute(select(model.id, model.attempt).where(expired).order_by(*order)).all()
    requeued = [
        row_id
        for row_id, attempt in rows
        if attempt < max_attempts and _put_back(session, model, row_id, attempt, expired, counts=True)
    ]
    return Expired(requeued, [(row_id, attempt) for row_id, attempt in rows if attempt >= max_attempts])


def owner_name(pid: int) -> str:
    """Name a process of this machine in leases."""
    return f"{machine_name()}:{pid}"


def expire_leases(session: Session, owner: str | None) -> None:
    """End at once what a worker holds that is known to be dead; None: what anyone holds, since nobody lives."""
    now = utc_now()
    for model in CLAIMABLE:
        held = (model.state == JobState.RUNNING, *(() if owner is None else (model.lease_owner == owner,)))
        session.execute(update(model).where(*held).values(lease_expires_at=now))
    planned = Search.planner.is_not(None) if owner is None else Search.planner.startswith(f"{owner}/", autoescape=True)
    session.execute(update(Search).where(planned).values(planner_expires_at=now))


def unpublished(session: Session, model: type[Claimable], older_than_s: float) -> list[Any]:
    """Ids of queued rows whose message seems lost: it was sent long ago, and nobody claimed them."""
    cutoff = utc_now() - timedelta(seconds=older_than_s)
    waiting = select(model.id).where(model.state == JobState.QUEUED, model.published_at < cutoff)
    return list(session.scalars(waiting.order_by(model.id)))


def claim_planning(session: Session, search_id: str, owner: str, lease_s: float) -> bool:
    """Become the one who plans a search. False when another does; that one is then asked to plan once more."""
    now = utc_now()
    is_free = or_(Search.planner.is_(None), Search.planner_expires_at < now)
    has_won = _update_search(
        session,
        (Search.id == search_id) & is_free,
        planner=owner,
        planner_expires_at=now + timedelta(seconds=lease_s),
        is_plan_wanted=False,
    )
    if not has_won:
        _update_search(session, Search.id == search_id, is_plan_wanted=True)
    return has_won


def is_planner(session: Session, search_id: str, owner: str) -> bool:
    """Whether `owner` still plans the search. Ask in the transaction that writes the plan, with the search locked."""
    mine = select(Search.id).where(Search.id == search_id, Search.planner == owner)
    return session.scalar(mine) is not None


def release_planning(session: Session, search_id: str, owner: str) -> bool:
    """Stop planning; returns whether somebody asked for a plan meanwhile, so that one more is to be sent."""
    wanted = select(Search.is_plan_wanted).where(Search.id == search_id, Search.planner == owner).with_for_update()
    is_wanted = session.scalar(wanted)
    _update_search(session, (Search.id == search_id) & (Search.planner == owner), planner=None, planner_expires_at=None)
    return bool(is_wanted)


def _put_back(
    session: Session, model: type[Claimable], row_id: Any, attempt: int, *conditions: Any, counts: bool
) -> bool:
    _lock_search(session, model, row_id)
    return _update_claimed(
        session,
        model,
        row_id,
        attempt,
        *conditions,
        state=str(JobState.QUEUED),
        attempt=attempt if counts else attempt - 1,
        lease_owner=None,
        lease_expires_at=None,
        started_at=None,
    )


def _lock_search(session: Session, model: type[Claimable], row_id: Any) -> None:
    """Lock the search, if the row has one, before the row: whoever locked them the other way round could block us.

    Counting its version up does that, and is due anyway, since the search's progress changes.
    """
    if not issubclass(model, SearchWork):
        return
    owner = select(model.search_id).where(model.id == row_id).scalar_subquery()
    _update_search(session, Search.id == owner, version=Search.version + 1)


def _update_claimed(
    session: Session, model: type[Claimable], row_id: Any, held_attempt: int, *conditions: Any, **columns: Any
) -> bool:
    held = (model.id == row_id, model.attempt == held_attempt, model.state == JobState.RUNNING, *conditions)
    statement = update(model).where(*held).values(**columns).returning(model.id)
    result = session.execute(statement.execution_options(synchronize_session=False))
    return result.scalar_one_or_none() is not None


def _update_search(session: Session, condition: Any, **columns: Any) -> bool:
    statement = update(Search).where(condition).values(**columns).returning(Search.id)
    result = session.execute(statement.execution_options(synchronize_session=False))
    return result.scalar_one_or_none() is not None
