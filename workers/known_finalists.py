"""What is known of finalists already: a design that was confirmed in the very same way is not trained once more.

Its trial has the same outcome key, see `workers.known_outcomes`; what is done to finalists beyond that, and the images
of `confirm`, have to be the same as well.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from search_spaces.spec import SearchSpec
from service.finalists.actions import KnownFinalist
from service.models import Finalist, Search, Trial
from service.states import JobState
from workers.known_outcomes import is_of_present_device, wants_fresh_figures


def find_confirmed(
    session: Session, search: Search, spec: SearchSpec, trial_ids: Sequence[int]
) -> dict[int, KnownFinalist]:
    """What other searches have found of the same designs on `confirm`, by trial."""
    if wants_fresh_figures(session, spec):
        return {}
    trials = select(Trial.outcome_key, Trial.id).where(Trial.id.in_(trial_ids), Trial.outcome_key.is_not(None))
    wanted = {str(key): trial_id for key, trial_id in session.execute(trials)}
    query = (
        select(Trial, Finalist, Search)
        .join(Finalist, Finalist.trial_id == Trial.id)
        .join(Search, Search.id == Trial.search_id)
        .where(Trial.outcome_key.in_(wanted), Finalist.state == JobState.SUCCEEDED, Search.id != search.id)
        .order_by(Finalist.id)
    )
    known: dict[int, KnownFinalist] = {}
    for trial, finalist, other in session.execute(query):
        if _is_confirmed_alike(search, spec, other) and is_of_present_device(session, finalist.details, spec):
            origin = {"search": other.id, "trial": trial.number, "name": other.name}
            details = {"origin": origin, **finalist.details}  # what was known there already keeps its origin
            known.setdefault(
                wanted[str(trial.outcome_key)], KnownFinalist(finalist.values, details, finalist.weights_digest)
            )
    return known


def _is_confirmed_alike(search: Search, spec: SearchSpec, other: Search) -> bool:
    """How many there are of them makes no difference to one."""
    images, of_others = ((one.base_report or {}).get("splits", {}).get("confirm") for one in (search, other))
    treated = SearchSpec.model_validate(other.spec).evaluation.finalists
    alike = treated.model_copy(update={"top": spec.evaluation.finalists.top})
    return images is not None and images == of_others and alike == spec.evaluation.finalists
