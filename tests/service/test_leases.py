"""Leases: of many who try, one wins; what is old is refused. On SQLite and on PostgreSQL, with real concurrency."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Engine, update

from search_spaces.objectives import Outcome, TrialState
from service import leases
from service.db import reading, transaction
from service.models import Search, Trial, utc_now
from service.searches.actions import cancel
from service.searches.queries import lock_search
from service.states import JobState, SearchState
from service.trials.actions import finish_trial, start_trial
from tests.service.builders import add_running_search, add_trial_rows, success

FAILED = Outcome(TrialState.FAILED, reason="it did not work")


@pytest.fixture
def search_id(engine: Engine) -> str:
    return add_running_search(engine)


@pytest.fixture
def trial_id(engine: Engine, search_id: str) -> int:
    return int(add_trial_rows(engine, search_id, 1)[0].id)


def claim(engine: Engine, trial_id: int, owner: str = "worker", lease_s: float = 60.0) -> int | None:
    with transaction(engine) as session:
        return leases.claim(session, Trial, trial_id, owner, lease_s)


def finish(engine: Engine, trial_id: int, attempt: int, state: str = "succeeded") -> bool:
    with transaction(engine) as session:
        return leases.finish(session, Trial, trial_id, attempt, state)


def get_trial(engine: Engine, trial_id: int) -> Trial:
    with reading(engine) as session:
        return session.get_one(Trial, trial_id)


def expire(engine: Engine, trial_id: int) -> None:
    with transaction(engine) as session:
        session.execute(update(Trial).where(Trial.id == trial_id).values(lease_expires_at=utc_now() - timedelta(1)))


def all_at_once(count: int, act: Callable[[int], object]) -> list[object]:
    barrier = threading.Barrier(count)

    def wait_and_act(index: int) -> object:
        barrier.wait()
        return act(index)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(wait_and_act, range(count)))


def test_of_many_claims_exactly_one_wins(engine: Engine, trial_id: int) -> None:
    answers = all_at_once(12, lambda index: claim(engine, trial_id, f"worker {index}"))
    assert sorted(map(str, answers)) == ["1"] + ["None"] * 11
    winner = answers.index(1)
    trial = get_trial(engine, trial_id)
    assert (trial.state, trial.lease_owner, trial.attempt) == ("running", f"worker {winner}", 1)


def test_of_many_results_exactly_one_is_written(engine: Engine, trial_id: int) -> None:
    attempt = claim(engine, trial_id)
    assert attempt is not None
    answers = all_at_once(8, lambda _: finish(engine, trial_id, attempt))
    assert answers.count(True) == 1


def test_late_result_of_an_expired_attempt_is_refused(engine: Engine, trial_id: int) -> None:
    first = claim(engine, trial_id)
    assert first == 1
    expire(engine, trial_id)
    with transaction(engine) as session:
        assert leases.requeue_expired(session, Trial).requeued == [trial_id]
    assert not finish(engine, trial_id, first)
    second = claim(engine, trial_id, "other")
    assert second == 2
    with transaction(engine) as session:
        assert not leases.renew(session, Trial, trial_id, first, 60)
        assert leases.renew(session, Trial, trial_id, second, 60)
    assert not finish(engine, trial_id, first, "failed")
    assert finish(engine, trial_id, second)
    assert get_trial(engine, trial_id).state == "succeeded"


def test_live_lease_is_left_alone(engine: Engine, trial_id: int) -> None:
    claim(engine, trial_id)
    with transaction(engine) as session:
        assert leases.requeue_expired(session, Trial) == leases.Expired([], [])


def test_poison_row_is_named_after_its_last_attempt(engine: Engine, trial_id: int) -> None:
    for attempt in range(1, leases.MAX_ATTEMPTS + 1):
        assert claim(engine, trial_id) == attempt
        expire(engine, trial_id)
        with transaction(engine) as session:
            expired = leases.requeue_expired(session, Trial)
    assert expired == leases.Expired([], [(trial_id, leases.MAX_ATTEMPTS)])
    with transaction(engine) as session:
        assert finish_trial(session, trial_id, leases.MAX_ATTEMPTS, FAILED)
    assert get_trial(engine, trial_id).reason == "it did not work"


def test_released_row_is_claimed_again_with_or_without_counting(engine: Engine, trial_id: int) -> None:
    for counts, next_attempt in ((False, 1), (True, 2)):
        attempt = claim(engine, trial_id)
        assert attempt is not None
        with transaction(engine) as session:
            assert leases.release(session, Trial, trial_id, attempt, counts=counts)
        trial = get_trial(engine, trial_id)
        assert (trial.state, trial.lease_owner, trial.started_at) == ("queued", None, None)
        assert trial.attempt + 1 == next_attempt


def test_lost_messages_are_found_and_unsent_rows_are_left_alone(engine: Engine, search_id: str) -> None:
    sent_long_ago, sent_now, _unsent = add_trial_rows(engine, search_id, 3)
    with transaction(engine) as session:
        for trial, age_s in ((sent_long_ago, 100), (sent_now, 0)):
            published_at = utc_now() - timedelta(seconds=age_s)
            session.execute(update(Trial).where(Trial.id == trial.id).values(published_at=published_at))
    with reading(engine) as session:
        assert leases.unpublished(session, Trial, 30) == [sent_long_ago.id]


def test_one_plans_and_the_others_leave_a_wish(engine: Engine, search_id: str) -> None:
    def plan(index: int) -> bool:
        with transaction(engine) as session:
            return leases.claim_planning(session, search_id, f"planner {index}", 60)

    answers = all_at_once(8, plan)
    assert answers.count(True) == 1
    planner = f"planner {answers.index(True)}"
    with transaction(engine) as session:
        assert leases.is_planner(session, search_id, planner)
        assert not leases.release_planning(session, search_id, "somebody else")
        assert leases.release_planning(session, search_id, planner)
        assert leases.claim_planning(session, search_id, "next", 60)
        assert not leases.release_planning(session, search_id, "next")


def test_expired_planner_is_replaced(engine: Engine, search_id: str) -> None:
    with transaction(engine) as session:
        assert leases.claim_planning(session, search_id, "slow", -1)
        assert leases.claim_planning(session, search_id, "next", 60)
        assert not leases.is_planner(session, search_id, "slow")


def test_finish_numbers_have_no_gap_when_trials_end_at_once(engine: Engine, search_id: str) -> None:
    trials = add_trial_rows(engine, search_id, 10)

    def run(index: int) -> bool:
        with transaction(engine) as session:
            attempt = start_trial(session, trials[index].id, f"worker {index}", 60)
        assert attempt is not None
        with transaction(engine) as session:
            return finish_trial(session, trials[index].id, attempt, success(0.9, 0.001))

    assert all_at_once(10, run) == [True] * 10
    numbers = [get_trial(engine, trial.id).finish_number for trial in trials]
    assert sorted(number or 0 for number in numbers) == list(range(1, 11))


def test_cancelling_while_trials_start_and_end_neither_blocks_nor_loses(engine: Engine, search_id: str) -> None:
    """Locks are taken in one order, so no two of these wait for each other."""
    trials = add_trial_rows(engine, search_id, 7)

    def act(index: int) -> object:
        if index == 7:
            with transaction(engine) as session:
                return cancel(session, lock_search(session, search_id))
        with transaction(engine) as session:
            attempt = start_trial(session, trials[index].id, "worker", 60)
        if attempt is not None:
            with transaction(engine) as session:
                assert finish_trial(session, trials[index].id, attempt, success(0.9, 0.001))
        return attempt

    attempts = all_at_once(8, act)[:7]
    with reading(engine) as session:
        assert session.get_one(Search, search_id).state is SearchState.CANCELLED
    for trial, attempt in zip(trials, attempts, strict=True):
        assert get_trial(engine, trial.id).state == ("cancelled" if attempt is None else "succeeded")


STEPS = st.lists(st.sampled_from(["claim", "expire", "renew", "finish", "late"]), min_size=1, max_size=12)


@hypothesis_settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_any_history_has_one_holder_and_one_result(engine: Engine, search_id: str, steps: list[str]) -> None:
    """A row behaves like this small model, whatever happens to it in whatever order."""
    trial_id = add_trial_rows(engine, search_id, 1)[0].id
    state, attempt = JobState.QUEUED, 0
    for step in steps:
        is_held = state is JobState.RUNNING
        if step == "claim":
            assert claim(engine, trial_id) == (attempt + 1 if state is JobState.QUEUED else None)
            if state is JobState.QUEUED:
                state, attempt = JobState.RUNNING, attempt + 1
        elif step == "expire" and is_held:
            expire(engine, trial_id)
            with transaction(engine) as session:
                assert leases.requeue_expired(session, Trial, max_attempts=100).requeued == [trial_id]
            state = JobState.QUEUED
        elif step == "renew":
            with transaction(engine) as session:
                assert leases.renew(session, Trial, trial_id, attempt, 60) == is_held
        elif step == "finish":
            assert finish(engine, trial_id, attempt) == is_held
            state = JobState.SUCCEEDED if is_held else state
        elif step == "late":
            assert not finish(engine, trial_id, attempt - 1, "failed")
    trial = get_trial(engine, trial_id)
    assert (trial.state, trial.attempt) == (state, attempt)
    assert (trial.lease_owner is not None) == (state is JobState.RUNNING)
    if trial.state == JobState.RUNNING:
        finish(engine, trial_id, attempt)
