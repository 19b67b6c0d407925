"""Devices come to be known: a worker announces them, and what waited for them goes on. The caller commits."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from search_spaces.capabilities import DeviceCapabilities
from search_spaces.check import SpecError, check_spec
from search_spaces.spec import SearchSpec
from service.db import insert_if_new
from service.errors import InvalidSpecError
from service.events.actions import append_event
from service.known import known_for_search
from service.measurements.conditions import digest_of
from service.models import Device, Search, utc_now
from service.searches.actions import fail, send_for_preparation
from service.searches.queries import lock_search
from service.states import EventKind, SearchState


def announce(session: Session, capabilities: DeviceCapabilities) -> None:
    """Write down a device, or that it is still there. Workers repeat this as their sign of life.

    Figures that were taken under another fingerprint are stale from then on.

    Each time searches that wait are looked at: one that was submitted while the device was being announced for the
    first time has not seen it, and was not seen.
    """
    told = capabilities.model_dump(mode="json")
    fingerprint_digest = digest_of(told["fingerprint"])
    now = utc_now()
    row = {
        "name": capabilities.name,
        "capabilities": told,
        "fingerprint_digest": fingerprint_digest,
        "announced_at": now,
        "seen_at": now,
    }
    is_new = insert_if_new(session, Device, row)
    device = session.get_one(Device, capabilities.name, populate_existing=True, with_for_update=True)
    device.seen_at = now
    if is_new or device.capabilities != told:
        device.capabilities, device.announced_at = told, now
        device.fingerprint_digest = fingerprint_digest
    session.flush()
    wake_waiting(session)


def wake_waiting(session: Session) -> None:
    """Check the searches that wait for a device again: prepare those that have it now, fail those it cannot serve."""
    may_wait = (SearchState.QUEUED, SearchState.PAUSED)
    waiting = select(Search.id).where(Search.state.in_(may_wait), Search.waiting_for != "").order_by(Search.id)
    for search_id in session.scalars(waiting).all():
        search = lock_search(session, search_id)
        if search.waiting_for and not search.state.is_over:
            _check_again(session, search)


def _check_again(session: Session, search: Search) -> None:
    try:
        checked = check_spec(SearchSpec.model_validate(search.spec), known_for_search(session, search))
    except SpecError as error:
        search.waiting_for = ""
        problem = InvalidSpecError("the device is here now, and cannot do what the spec asks", faults=error.faults)
        fail(session, search, problem.document())
        return
    search.warnings = list(checked.warnings)
    if checked.waiting_for:
        search.waiting_for = checked.waiting_for
        return
    search.waiting_for = ""
    append_event(session, search.id, EventKind.NOTE, {"message": "the device is here"})
    send_for_preparation(session, search)
