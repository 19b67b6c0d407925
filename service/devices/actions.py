"""Devices come and go: a worker announces them, and what waits for them goes on.

The caller commits; `wake_waiting` does so itself.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

from search_spaces.accelerators.models import is_everywhere
from search_spaces.capabilities import DeviceCapabilities
from search_spaces.check import check_spec, waiting_for
from search_spaces.faults import SpecError
from search_spaces.known import Known
from search_spaces.spec import SearchSpec
from service.db import insert_if_new, reading, transaction
from service.devices.queries import LIVE_FOR_S, absent_devices, is_live, known_devices
from service.errors import InvalidSpecError
from service.events.actions import append_event
from service.known import known_for_search
from service.leases import owner_name
from service.machine import machine_name
from service.measurements.conditions import digest_of
from service.models import Device, Preparation, Search, utc_now
from service.searches.actions import fail, send_for_preparation
from service.searches.busy import GOING_ON, held_up_by
from service.searches.queries import lock_search
from service.states import EventKind, SearchState

_log = logging.getLogger(__name__)


class DeviceTakenError(Exception):
    """A device of this name is there, and it is not the same one.

    Attributes:
        seen_at: the last sign of life of the worker that has it; None where the name is not free without one either.
    """

    def __init__(self, message: str, seen_at: datetime | None) -> None:
        super().__init__(message)
        self.seen_at = seen_at


@dataclass(frozen=True)
class Announcer:
    """Who announces a device.

    Attributes:
        owner: the process, as it is named in leases.
        host: the machine, see `service.machine`.
    """

    owner: str
    host: str


def this_process() -> Announcer:
    return Announcer(owner_name(os.getpid()), machine_name())


def announce(session: Session, capabilities: DeviceCapabilities, announcer: Announcer, kind: str = "") -> bool:
    """Write down a device, or that it is still there. Workers repeat this as their sign of life.

    Figures that were taken under another fingerprint are stale from then on. Once it is committed, `wake_waiting`.

    Args:
        session: a writing one.
        capabilities: under the name that specs say.
        announcer: whose device it is.
        kind: what all machines call it; the name where nothing is given.

    Returns:
        Whether it was another process that announced it last, and may live.

    Raises:
        DeviceTakenError: see `check_is_free`.
    """
    device = _write(session, capabilities, announcer, kind)
    is_shared = device.owner not in (None, announcer.owner) and is_live(device)
    device.owner, device.seen_at = announcer.owner, utc_now()
    session.flush()
    return is_shared


def describe(session: Session, capabilities: DeviceCapabilities, announcer: Announcer, kind: str) -> None:
    """Write down what a device is, without a worker for it: a profile does so, and no search is woken by that.

    Raises:
        DeviceTakenError: see `check_is_free`.
    """
    _write(session, capabilities, announcer, kind)
    session.flush()


def _write(session: Session, capabilities: DeviceCapabilities, announcer: Announcer, kind: str) -> Device:
    told = capabilities.model_dump(mode="json")
    fingerprint_digest = digest_of(told["fingerprint"])
    now = utc_now()
    row = {
        "name": capabilities.name,
        "capabilities": told,
        "fingerprint_digest": fingerprint_digest,
        "announced_at": now,
        "seen_at": now - timedelta(seconds=LIVE_FOR_S),
    }
    is_new = insert_if_new(session, Device, row)
    device = session.get_one(Device, capabilities.name, populate_existing=True, with_for_update=True)
    check_is_free(session, capabilities, announcer)
    device.kind = kind or capabilities.name
    device.host = "" if capabilities.simulated else announcer.host
    if is_new or device.capabilities != told:
        device.capabilities, device.announced_at = told, now
        device.fingerprint_digest = fingerprint_digest
    return device


def check_is_free(session: Session, capabilities: DeviceCapabilities, announcer: Announcer) -> None:
    """Refuse a name that stands for something else: figures of two machines would be mixed, and two measured at once.

    A model that is no closed form may be on several machines, if it is the same one.

    Raises:
        DeviceTakenError: one of the two is simulated; or a worker that lives has it with another fingerprint, or on
            another machine.
    """
    device = session.get(Device, capabilities.name)
    if device is None:
        return
    if device.is_simulated != capabilities.simulated:
        kinds = ("is simulated", "measures") if device.is_simulated else ("measures", "is simulated")
        raise DeviceTakenError(
            f"the device name {device.name} is taken: it stands for one that {kinds[0]}, and this one {kinds[1]}. Give "
            "this machine's device another name",
            None,
        )
    if is_everywhere(capabilities) or device.owner in (None, announcer.owner) or not is_live(device):
        return
    theirs = device.capabilities.get("fingerprint", {})
    differing = sorted(
        key for key in theirs | capabilities.fingerprint if theirs.get(key) != capabilities.fingerprint.get(key)
    )
    if not differing and (capabilities.simulated or device.host == announcer.host):
        return
    difference = f", and it differs in {', '.join(differing)}" if differing else ""
    raise DeviceTakenError(
        f"the device name {device.name} is taken: {device.owner} has announced it, and lives{difference}. Give this "
        f"machine's device a name of its own: espalier worker --device NAME={device.kind or device.name}",
        device.seen_at,
    )


def leave(session: Session, owner: str, names: Collection[str]) -> None:
    """Free names that a worker has announced which ends in peace, unless somebody else was the last to do so."""
    session.execute(update(Device).where(Device.owner == owner, Device.name.in_(names)).values(owner=None))


def find_stranded(session: Session) -> list[str]:
    """Ids of the searches that go on, although no live worker has their device any more."""
    known = _known_devices(session)
    if not known.absent:
        return []
    going_on = select(Search.id, Search.spec).where(Search.state.in_(GOING_ON), Search.waiting_for == "")
    rows = session.execute(going_on.order_by(Search.id)).all()
    return [search_id for search_id, spec in rows if SearchSpec.model_validate(spec).device in known.absent]


def note_absence(session: Session, search_id: str) -> None:
    """Say of a search that is stranded what it waits for. It is not failed: its rows wait, too."""
    search = lock_search(session, search_id)
    reason = waiting_for(SearchSpec.model_validate(search.spec).device, _known_devices(session))
    if reason and not search.waiting_for and search.state in GOING_ON:
        search.waiting_for = reason
        append_event(session, search.id, EventKind.NOTE, {"message": reason})


def note_held_up(session: Session, search_id: str) -> None:
    """Say of a search that waits for a free worker what they all do."""
    search = lock_search(session, search_id)
    reason = held_up_by(session, search)
    if reason and not search.waiting_for:
        search.waiting_for = reason
        append_event(session, search.id, EventKind.NOTE, {"message": reason})


def _known_devices(session: Session) -> Known:
    return Known(devices=known_devices(session), absent=absent_devices(session))


def wake_waiting(engine: Engine) -> None:
    """Look again at the searches that wait for a device or for a free worker: those that have it now go on.

    Those that a device cannot serve fail. Workers look with each sign of life, and the reaper does: a search that was
    submitted while its device was being announced for the first time has not seen it, and was not seen. Each search by
    itself: one that cannot be looked at holds up nothing.
    """
    may_wait = (*GOING_ON, SearchState.PAUSED)
    waiting = select(Search.id).where(Search.state.in_(may_wait), Search.waiting_for != "").order_by(Search.id)
    with reading(engine) as session:
        search_ids = session.scalars(waiting).all()
    for search_id in search_ids:
        try:
            with transaction(engine) as session:
                _wake(session, search_id)
        except Exception:
            _log.exception("search %s waits, and cannot be looked at again", search_id)


def _wake(session: Session, search_id: str) -> None:
    search = lock_search(session, search_id)
    if search.waiting_for and not search.state.is_over:
        _check_again(session, search)


def _check_again(session: Session, search: Search) -> None:
    known = known_for_search(session, search)
    spec = SearchSpec.model_validate(search.spec)
    absence = waiting_for(spec.device, known)
    reason = absence or held_up_by(session, search)
    if reason:
        if reason != search.waiting_for:
            search.waiting_for = reason
            search.version += 1
        return
    is_begun = session.scalar(select(Preparation.id).where(Preparation.search_id == search.id)) is not None
    if not is_begun and not _suits(session, search, spec, known):
        return
    search.waiting_for = ""
    append_event(session, search.id, EventKind.NOTE, {"message": "what it waited for is here"})
    if not is_begun:  # what waits in a search that has begun is sent again by the reaper
        send_for_preparation(session, search)


def _suits(session: Session, search: Search, spec: SearchSpec, known: Known) -> bool:
    """Whether the device that is here now can do what is asked; the search fails if not."""
    try:
        checked = check_spec(spec, known)
    except SpecError as error:
        problem = InvalidSpecError("the device is here now, and cannot do what the spec asks", faults=error.faults)
        fail(session, search, problem.document())
        return False
    search.warnings = list(checked.warnings)
    return True
