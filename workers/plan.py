"""Planning: what a search does next. Tells the sampler what finished, asks for designs, adds trials, ends the search.

One planner plans a search at a time. No transaction is open while the sampler thinks, so that claims, renewals and
results of other trials go on; what is written afterwards is refused when the planner has lost its turn meanwhile.
It must not know how a trial is run.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from search_spaces.choose_sampler import choose_sampler
from search_spaces.design import Design, design_from_json
from search_spaces.faults import SpecError
from search_spaces.objectives import TrialState
from search_spaces.pareto import spread
from search_spaces.samplers import Proposal
from search_spaces.spec import SearchSpec
from service import leases
from service.db import reading, transaction
from service.errors import InvalidSpecError, ProblemError
from service.events.actions import append_event
from service.finalists.actions import add_finalists, unconfirmed
from service.models import Finalist, Search, Trial, utc_now
from service.queue import TaskName, send_after_commit
from service.searches.actions import fail, move, note_end, settle, warn
from service.searches.extensions import EMPTY_FRONT
from service.searches.queries import lock_search
from service.searches.specs import spec_of
from service.states import EndReason, EventKind, JobState, Obtained, SearchState
from service.wording import counted
from workers.known_finalists import find_confirmed
from workers.live_sampler import LiveSampler, LiveSamplers, unheard_trials
from workers.new_trials import add_designs
from workers.stopping import End, too_many_failed, why_no_more
from workers.workplace import Workplace

_log = logging.getLogger(__name__)

PLAN_LEASE_S = 20.0
MAX_ROUNDS = 20  # then another message goes on, so that the lease suffices
_ASKING = (SearchState.RUNNING, SearchState.PAUSED)
_OPEN = (TrialState.QUEUED, TrialState.RUNNING)


class TooManyFailuresError(ProblemError):
    slug = "too-many-failures"
    title = "Too many trials failed"


class SamplerFailedError(ProblemError):
    slug = "sampler-failed"
    title = "The sampler failed"


@dataclass(frozen=True)
class Tally:
    """How many trials of a search there are. Open ones have been sent to the workers, waiting ones have not.

    `searched` are those that count against the budget, in any state; the baseline does not, nor does what was
    inherited. `ended` and `failed` are of those that this search has evaluated.
    """

    open: int = 0
    waiting: int = 0
    searched: int = 0
    ended: int = 0
    failed: int = 0


def plan_search(workplace: Workplace, samplers: LiveSamplers, search_id: str) -> None:
    """Plan until no more trials can be added for now; if somebody else plans, that one is asked to go on."""
    planner = f"{workplace.owner}/{uuid.uuid4().hex[:8]}"
    with transaction(workplace.engine) as session:
        if not leases.claim_planning(session, search_id, planner, PLAN_LEASE_S):
            return
    is_wanted = False
    try:
        is_wanted = _plan_in_rounds(workplace, samplers, search_id, planner)
    finally:
        with transaction(workplace.engine) as session:
            if leases.release_planning(session, search_id, planner) or is_wanted:
                send_after_commit(session, TaskName.PLAN, search_id)
            state = session.scalar(select(Search.state).where(Search.id == search_id))
        if state not in _ASKING:
            samplers.forget(search_id)


def _plan_in_rounds(workplace: Workplace, samplers: LiveSamplers, search_id: str, planner: str) -> bool:
    """Returns whether there is more to plan than one planner's lease allows."""
    for _ in range(MAX_ROUNDS):
        with transaction(workplace.engine) as session:
            wanted = advance(session, lock_search(session, search_id))
        if wanted == 0 or not _add_proposals(workplace, samplers, search_id, planner, wanted):
            return False
    return True


def advance(session: Session, search: Search) -> int:
    """Do all that needs no sampler; returns how many designs to ask it for. `search` must be locked."""
    if search.state is SearchState.CANCELLING:
        settle(session, search)
    elif search.state is SearchState.CONFIRMING:
        _end_if_confirmed(session, search)
    elif search.state is SearchState.RUNNING:
        return _advance_trials(session, search, spec_of(search))
    return 0


def count_trials(session: Session, search_id: str) -> Tally:
    kinds = (Trial.state, Trial.baseline, Trial.obtained)
    query = select(*kinds, func.count(), func.count(Trial.published_at)).where(Trial.search_id == search_id)
    tally = dict.fromkeys(Tally.__dataclass_fields__, 0)
    for state, is_baseline, obtained, count, sent in session.execute(query.group_by(*kinds)):
        waiting = count - sent if state == TrialState.QUEUED else 0
        tally["waiting"] += waiting
        tally["open"] += count * (state in _OPEN) - waiting
        tally["searched"] += count * (not is_baseline and obtained != Obtained.INHERITED)
        is_ended = state not in (*_OPEN, TrialState.CANCELLED)
        tally["ended"] += count * (is_ended and obtained == Obtained.EVALUATED)
        tally["failed"] += count * (state == TrialState.FAILED)
    return Tally(**tally)


def _advance_trials(session: Session, search: Search, spec: SearchSpec) -> int:
    tally = count_trials(session, search.id)
    if too_many_failed(tally.failed, tally.ended, spec):
        _fail_for_failures(session, search, tally)
        return 0
    end = why_no_more(session, search, spec)
    free = spec.budget.concurrency - tally.open
    if tally.waiting and end is None:
        free -= _send_waiting(session, search.id, free)
    left = 0 if end is not None else spec.budget.trials - tally.searched
    if left > 0:
        return max(0, min(free, left))
    if tally.open == 0 and (end is not None or tally.waiting == 0):
        spent = (EndReason.TRIALS, f"the budget of {counted(spec.budget.trials, 'trial')} is spent")
        end_trials(session, search, spec, _of_nothing_searched(end, tally) or end or spent)
    return 0


def _of_nothing_searched(end: End | None, tally: Tally) -> End | None:
    """What is said where a budget of time was spent before the sampler was asked for anything."""
    if end is None or tally.searched:
        return None
    reason, message = end
    return reason, f"{message}; the uniform baseline took all of it, and no design was searched: allow more"


def _send_waiting(session: Session, search_id: str, free: int) -> int:
    """Send the baseline trials that wait for a slot; returns how many."""
    waiting = select(Trial.id).where(
        Trial.search_id == search_id, Trial.state == TrialState.QUEUED, Trial.published_at.is_(None)
    )
    trial_ids = session.scalars(waiting.order_by(Trial.number).limit(max(free, 0))).all()
    for trial_id in trial_ids:
        send_after_commit(session, TaskName.RUN, trial_id)
    return len(trial_ids)


def _fail_for_failures(session: Session, search: Search, tally: Tally) -> None:
    last = session.scalar(
        select(Trial.reason)
        .where(Trial.search_id == search.id, Trial.state == TrialState.FAILED)
        .order_by(Trial.finish_number.desc())
        .limit(1)
    )
    detail = f"{tally.failed} of {tally.ended} trials failed, the last one with: {last}"
    fail(session, search, TooManyFailuresError(detail).document(), EndReason.FAILURES)


# --- asking the sampler -----------------------------------------------------------------------------------------


def _add_proposals(workplace: Workplace, samplers: LiveSamplers, search_id: str, planner: str, wanted: int) -> bool:
    """Ask the sampler and add what it proposes; returns whether slots may still be free."""
    with reading(workplace.engine) as session:
        search = session.get_one(Search, search_id)
        try:
            live = samplers.take(session, search)
        except SpecError as error:
            problem: ProblemError = InvalidSpecError("the device no longer suits the spec", faults=error.faults)
            return _fail(workplace, search_id, problem)
        unheard = unheard_trials(session, search_id, live)
        open_designs = _open_designs(session, search_id)
        first_number = _next_number(session, search_id)
    try:
        samplers.tell(search_id, live, unheard)
        proposals = live.sampler.ask(wanted, first_number, open_designs)
    except Exception as error:
        _log.exception("the sampler of search %s failed", search_id)
        return _fail(workplace, search_id, SamplerFailedError(f"{type(error).__name__}: {error}"))
    samplers.put_back(search_id, live)
    with transaction(workplace.engine) as session:
        search = lock_search(session, search_id)
        if search.state is not SearchState.RUNNING or not leases.is_planner(session, search_id, planner):
            return False
        return _add(session, search, live, proposals)


def _add(session: Session, search: Search, live: LiveSampler, proposals: Sequence[Proposal]) -> bool:
    chosen = asdict(choose_sampler(live.spec, live.space))
    if search.sampler != chosen:  # an extension has given it another budget to choose by
        search.sampler = chosen
    trials = add_designs(session, search, live.spec, live.space.network, proposals)
    queued = [trial.id for trial in trials if trial.state == TrialState.QUEUED]
    for trial_id in queued:
        send_after_commit(session, TaskName.RUN, trial_id)
    if not trials and count_trials(session, search.id).open == 0:
        end_trials(session, search, live.spec, (EndReason.EXHAUSTED, "the sampler has no further design"))
    return len(queued) < len(trials)


def _open_designs(session: Session, search_id: str) -> list[Design]:
    rows = session.scalars(select(Trial.design).where(Trial.search_id == search_id, Trial.state.in_(_OPEN)))
    return [design_from_json(row) for row in rows]


def _next_number(session: Session, search_id: str) -> int:
    last = session.scalar(select(func.max(Trial.number)).where(Trial.search_id == search_id))
    return 0 if last is None else last + 1


def _fail(workplace: Workplace, search_id: str, problem: ProblemError) -> bool:
    with transaction(workplace.engine) as session:
        search = lock_search(session, search_id)
        if not search.state.is_over:
            fail(session, search, problem.document())
    return False


# --- the end ----------------------------------------------------------------------------------------------------


def end_trials(session: Session, search: Search, spec: SearchSpec, end: End) -> None:
    """Have the best trials confirmed that are not yet; without any, or when none is wanted, the search succeeds."""
    note_end(search, *end)
    append_event(session, search.id, EventKind.NOTE, {"message": f"no more trials: {search.end_message}"})
    _cancel_waiting(session, search.id)
    trials = session.scalars(
        select(Trial).where(Trial.search_id == search.id, Trial.state == TrialState.SUCCEEDED).order_by(Trial.number)
    ).all()
    chosen = choose_finalists(trials, spec)
    if not trials:
        warn(session, search, [EMPTY_FRONT])
    if to_confirm := unconfirmed(session, [trial.id for trial in chosen]):
        move(session, search, SearchState.CONFIRMING)
        add_finalists(session, search, to_confirm, find_confirmed(session, search, spec, to_confirm))
    else:
        move(session, search, SearchState.SUCCEEDED)


def choose_finalists(trials: Sequence[Trial], spec: SearchSpec) -> list[Trial]:
    """At most `top` of the sampler's designs' own front, and as many of the uniform ones': the fair comparison."""
    found = _best([trial for trial in trials if not trial.baseline], spec)
    uniform = _best([trial for trial in trials if trial.baseline], spec)
    return sorted({trial.id: trial for trial in (*found, *uniform)}.values(), key=lambda trial: trial.number)


def _best(trials: Sequence[Trial], spec: SearchSpec) -> list[Trial]:
    values = [trial.values for trial in trials]
    return [trials[index] for index in spread(values, spec.objectives, spec.evaluation.finalists.top)]


def _cancel_waiting(session: Session, search_id: str) -> None:
    waiting = update(Trial).where(Trial.search_id == search_id, Trial.state == TrialState.QUEUED)
    session.execute(waiting.values(state=str(TrialState.CANCELLED), finished_at=utc_now()))


def _end_if_confirmed(session: Session, search: Search) -> None:
    query = select(Finalist.state, func.count()).where(Finalist.search_id == search.id).group_by(Finalist.state)
    counts = {JobState(state): count for state, count in session.execute(query)}
    if any(not state.is_final for state in counts):
        return
    failed = counts.get(JobState.FAILED, 0)
    if failed:
        message = f"{failed} of {sum(counts.values())} finalists could not be confirmed"
        append_event(session, search.id, EventKind.NOTE, {"message": message})
    move(session, search, SearchState.SUCCEEDED)
