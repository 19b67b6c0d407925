"""Which trials of a search a request is about: those that it names, else what the front offers as it is now."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from search_spaces.faults import Fault
from service.errors import InvalidRequestError, NotFoundError, StateConflictError
from service.models import Search, Trial
from service.trials.fronts import Front, find_front
from service.trials.queries import get_trial

MOST_TRIALS = 100


def wanted_trial(session: Session, search: Search, number: int | None) -> Trial:
    """The trial of that number; without one the front's knee.

    Raises:
        InvalidRequestError: there is no such trial.
        StateConflictError: the front is empty.
    """
    if number is None:
        number = _front_of(session, search).knee
        assert number is not None, "a front with members has a knee"
    return _named(session, search, number, "/trial")


def wanted_trials(session: Session, search: Search, numbers: Sequence[int] | None) -> list[Trial]:
    """The trials of these numbers, each once; without any, the members of the front.

    Raises:
        InvalidRequestError: there is no such trial, or the front has too many members.
        StateConflictError: the front is empty.
    """
    if numbers is not None:
        named = enumerate(dict.fromkeys(numbers))
        return [_named(session, search, number, f"/trials/{place}") for place, number in named]
    members = _front_of(session, search).members
    if len(members) > MOST_TRIALS:
        detail = f"the front has {len(members)} members; name at most {MOST_TRIALS} trials"
        raise InvalidRequestError(detail, faults=[Fault("/trials", detail)])
    return [trial for trial, _ in members]


def _front_of(session: Session, search: Search) -> Front:
    front = find_front(session, search)
    if not front.members:
        raise StateConflictError("the front is empty: nothing has succeeded yet", extra={"state": search.state})
    return front


def _named(session: Session, search: Search, number: int, pointer: str) -> Trial:
    try:
        return get_trial(session, search.id, number)[0]
    except NotFoundError as error:
        raise InvalidRequestError(error.detail, faults=[Fault(pointer, error.detail)]) from None
