"""Preparing a search: its base and anchor are trained or found, then the uniform baseline is put first.

Behind it comes what other searches have found that it begins with.
"""

from __future__ import annotations

from sqlalchemy.orm import Session

from search_spaces.check import Checked, check_spec
from search_spaces.faults import SpecError
from search_spaces.samplers import Proposal
from search_spaces.spec import SearchSpec
from service.db import transaction
from service.errors import InvalidSpecError, ProblemError
from service.known import known_for_search
from service.models import Preparation, Search
from service.preparations.actions import (
    cancel_preparation,
    fail_preparation,
    finish_preparation,
    start_preparation,
)
from service.queue import TaskName, send_after_commit
from service.searches.actions import warn
from service.searches.queries import lock_search
from service.searches.specs import settle_budgets, spec_of
from service.states import JobState
from workers.evaluator import JobName
from workers.new_trials import add_designs
from workers.warm_start import take_over
from workers.workplace import LEASE_S, Claim, Ending, Workplace, work

DEADLINE_S = 6 * 3600.0


class UnpreparedError(ProblemError):
    slug = "preparation-failed"
    title = "The base network could not be prepared"


def prepare_search(workplace: Workplace, preparation_id: int) -> None:
    with transaction(workplace.engine) as session:
        attempt = start_preparation(session, preparation_id, workplace.owner, LEASE_S)
        if attempt is None:
            return
        search = session.get_one(Search, session.get_one(Preparation, preparation_id).search_id)
        claim = Claim(TaskName.PREPARE, preparation_id, attempt, search.id)
        checked = _check_again(session, search, claim)
        if checked is None:
            return
    arguments = {"spec": search.spec, "sources": search.sources}
    ending = work(workplace, claim, JobName.PREPARE, arguments, DEADLINE_S)
    if ending is not None:
        with transaction(workplace.engine) as session:
            _finish(session, claim, search.id, checked, ending)


def _check_again(session: Session, search: Search, claim: Claim) -> Checked | None:
    """The device may have been announced, or have changed, since the spec was accepted."""
    try:
        return check_spec(SearchSpec.model_validate(search.spec), known_for_search(session, search))
    except SpecError as error:
        problem = InvalidSpecError("what the spec names cannot do any more what it asks", faults=error.faults)
        fail_preparation(session, claim.row_id, claim.attempt, problem.document())
        return None


def _finish(session: Session, claim: Claim, search_id: str, checked: Checked, ending: Ending) -> None:
    if ending.state is JobState.CANCELLED:
        cancel_preparation(session, claim.row_id, claim.attempt)
    elif ending.state is JobState.FAILED:
        problem = UnpreparedError(ending.reason)
        fail_preparation(session, claim.row_id, claim.attempt, problem.document())
    elif finish_preparation(session, claim.row_id, claim.attempt, ending.result["base_key"], dict(ending.result)):
        search = lock_search(session, search_id)
        warn(session, search, ending.result.get("warnings", []))
        settle_budgets(search, ending.result["budget_bases"])
        spec = spec_of(search)
        baseline = [Proposal(design, {}) for design in checked.space.uniform]
        add_designs(session, search, spec, checked.space.network, baseline, baseline=True)
        take_over(session, search, spec, checked.space)
        send_after_commit(session, TaskName.PLAN, search_id)
