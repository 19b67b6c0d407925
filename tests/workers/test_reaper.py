"""What was lost with a process or a message is found again; what was not is left alone."""

from datetime import timedelta

import pytest

from search_spaces.capabilities import DeviceCapabilities
from search_spaces.objectives import Metric
from service import db, leases
from service.devices.actions import this_process
from service.devices.queries import LIVE_FOR_S
from service.models import Device, Finalist, Preparation, Refinement, Search, Trial, utc_now
from service.queue import TaskName
from service.refinements.actions import finish_refinement, request_refinement
from service.searches import actions
from service.searches.busy import HELD_UP_AFTER_S
from service.searches.queries import lock_search
from service.states import JobState, SearchState
from tests.workers.stage import make_spec
from workers.announce import Offered
from workers.presence import Presence
from workers.reaper import Reaper
from workers.workplace import LEASE_S

PATIENCE_S = 3.0


@pytest.fixture
def reaper(stage):
    return Reaper(stage.workplace.engine, PATIENCE_S)


def lose_messages(stage) -> None:
    stage.messages.clear()


def claim_and_die(stage, model) -> None:
    """A worker claims what is queued, and is never heard of again."""
    with db.transaction(stage.workplace.engine) as session:
        for row in session.query(model).filter_by(state="queued").filter(model.published_at.is_not(None)):
            assert leases.claim(session, model, row.id, "dead", LEASE_S)
    lose_messages(stage)


def test_a_search_ends_well_although_every_message_is_lost(stage, reaper):
    search_id = stage.submit(make_spec(budget={"trials": 3, "concurrency": 2}))
    lost = 0
    for _ in range(200):
        lost += len(stage.messages)
        lose_messages(stage)
        stage.age(60)
        reaper.replanned.clear()
        reaper.reap()
        if stage.messages:
            stage.deliver(1)
        if stage.search(search_id).state.is_final:
            break
    assert stage.search(search_id).state is SearchState.SUCCEEDED
    assert lost > 10
    assert {trial.attempt for trial in stage.trials(search_id)} == {1}


@pytest.mark.parametrize("model", [Preparation, Trial, Finalist])
def test_a_row_whose_worker_died_is_done_by_another(stage, reaper, model):
    search_id = stage.submit(make_spec())
    while not has_queued(stage, model):
        stage.deliver(1)
    claim_and_die(stage, model)
    reaper.reap()
    assert stage.messages == []  # the lease has not expired
    stage.age(LEASE_S + 1)
    reaper.reap()
    stage.deliver()
    assert stage.search(search_id).state is SearchState.SUCCEEDED


def has_queued(stage, model) -> bool:
    with db.reading(stage.workplace.engine) as session:
        return session.query(model).filter(model.state == "queued", model.published_at.is_not(None)).count() > 0


def test_a_trial_that_takes_too_many_workers_along_fails_and_the_search_goes_on(stage, reaper):
    search_id = stage.submit(make_spec())
    while not has_queued(stage, Trial):
        stage.deliver(1)
    for _ in range(leases.MAX_ATTEMPTS):
        claim_and_die(stage, Trial)
        stage.age(LEASE_S + 1)
        reaper.reap()
    poison = stage.trials(search_id)[0]
    assert (poison.state, poison.attempt, poison.reason) == ("failed", 5, "its worker died, 5 times")
    stage.deliver()
    assert stage.search(search_id).state is SearchState.SUCCEEDED


def test_a_preparation_that_takes_too_many_workers_along_fails_the_search(stage, reaper):
    search_id = stage.submit(make_spec())
    for _ in range(leases.MAX_ATTEMPTS):
        claim_and_die(stage, Preparation)
        stage.age(LEASE_S + 1)
        reaper.reap()
    search = stage.search(search_id)
    assert search.state is SearchState.FAILED
    assert search.problem["detail"] == "its worker died, 5 times"


def test_messages_that_only_wait_are_not_repeated_at_once_nor_for_ever(stage, reaper):
    stage.submit(make_spec())
    reaper.reap()
    assert stage.messages == [(TaskName.PREPARE, 1)]
    stage.age(PATIENCE_S + 0.5)
    reaper.reap()
    reaper.reap()
    assert stage.messages == [(TaskName.PREPARE, 1)] * 2
    # The next repetition waits as long as the row has waited, so that a busy queue is not filled.
    stage.age(PATIENCE_S - 1)
    reaper.reap()
    assert len(stage.messages) == 2


def test_baseline_trials_that_wait_for_a_slot_are_not_sent(stage, reaper):
    search_id = stage.submit(make_spec())
    stage.deliver(2)
    stage.messages.clear()
    stage.age(1000)
    reaper.reap()
    sent = [row_id for task, row_id in stage.messages if task is TaskName.RUN]
    assert sent == [stage.trials(search_id)[0].id]


def test_a_cancelled_search_ends_although_its_worker_died(stage, reaper):
    search_id = stage.submit(make_spec())
    while not has_queued(stage, Trial):
        stage.deliver(1)
    claim_and_die(stage, Trial)
    with db.transaction(stage.workplace.engine) as session:
        actions.cancel(session, lock_search(session, search_id))
    assert stage.search(search_id).state is SearchState.CANCELLING
    stage.age(LEASE_S + 1)
    for _ in range(3):
        reaper.reap()
        stage.deliver()
        stage.age(PATIENCE_S + 1)
    assert stage.search(search_id).state is SearchState.CANCELLED
    assert not any(trial.state in ("queued", "running") for trial in stage.trials(search_id))


def test_a_planner_that_died_is_replaced(stage, reaper):
    search_id = stage.submit(make_spec())
    stage.deliver(1)
    with db.transaction(stage.workplace.engine) as session:
        search = session.get_one(Search, search_id)
        search.planner, search.planner_expires_at = "dead", utc_now() + timedelta(seconds=20)
    stage.deliver()
    assert stage.search(search_id).state is SearchState.RUNNING
    stage.age(21)
    reaper.reap()
    stage.deliver()
    assert stage.search(search_id).state is SearchState.SUCCEEDED


def test_two_reapers_do_no_harm(stage, reaper):
    search_id = stage.submit(make_spec())
    other = Reaper(stage.workplace.engine, PATIENCE_S)
    for _ in range(25):
        stage.age(60)
        reaper.reap()
        other.reap()
        stage.deliver(9)
    assert stage.search(search_id).state is SearchState.SUCCEEDED
    assert {trial.attempt for trial in stage.trials(search_id)} == {1}


LATENCY = [
    {"metric": "accuracy", "direction": "maximize"},
    {"metric": "latency_s", "direction": "minimize", "device": "local-cpu"},
]


def device(**changes) -> DeviceCapabilities:
    told = {
        "name": "local-cpu",
        "description": "",
        "precisions": ("fp32", "w8a8"),
        "metrics": (Metric.LATENCY_S,),
        "channel_divisor": 16,
    }
    return DeviceCapabilities.model_validate(told | changes)


def give_sign_of_life(stage, devices) -> None:
    Presence(stage.workplace.engine, this_process(), devices).repeat()


def test_a_search_waits_for_its_device_and_is_woken_by_it(stage):
    search_id = stage.submit(make_spec(objectives=LATENCY))
    assert stage.messages == []
    assert "local-cpu" in stage.search(search_id).waiting_for
    give_sign_of_life(stage, [Offered(device())])
    give_sign_of_life(stage, [Offered(device())])
    assert [task for task, _ in stage.messages] == [TaskName.PREPARE]
    assert stage.search(search_id).waiting_for == ""


def test_a_device_that_changed_before_the_preparation_fails_the_search_with_pointers(stage):
    give_sign_of_life(stage, [Offered(device())])
    search_id = stage.submit(make_spec(objectives=LATENCY))
    give_sign_of_life(stage, [Offered(device(precisions=("fp32",)))])
    stage.deliver()
    search = stage.search(search_id)
    assert search.state is SearchState.FAILED
    assert search.problem["errors"][0]["pointer"].startswith("/space/precision/choices/1")


def test_a_search_whose_device_goes_away_waits_and_goes_on_with_it(stage, reaper):
    give_sign_of_life(stage, [Offered(device())])
    search_id = stage.submit(make_spec(objectives=LATENCY))
    stage.deliver(2)  # prepared and planned
    assert stage.search(search_id).state is SearchState.RUNNING
    lose_messages(stage)
    with db.transaction(stage.workplace.engine) as session:
        session.get_one(Device, "local-cpu").seen_at -= timedelta(seconds=LIVE_FOR_S)
    stage.age(600)
    for _ in range(3):
        reaper.reap()
    assert stage.messages == []
    assert "local-cpu was last seen at" in stage.search(search_id).waiting_for
    assert stage.search(search_id).state is SearchState.RUNNING
    give_sign_of_life(stage, [Offered(device())])
    assert stage.search(search_id).waiting_for == ""
    reaper.reap()
    stage.deliver()
    assert stage.search(search_id).state is SearchState.SUCCEEDED
    assert {trial.attempt for trial in stage.trials(search_id)} == {1}


def test_a_search_says_that_a_refinement_keeps_the_only_worker_busy(stage, reaper):
    done = stage.submit(make_spec(name="done", budget={"trials": 1}))
    stage.deliver()
    with db.transaction(stage.workplace.engine) as session:
        trial = next(row for row in stage.trials(done) if row.state == "succeeded")
        refinement = request_refinement(session, session.get_one(Search, done), trial, {"epochs": 5})[0]
        attempt = leases.claim(session, Refinement, refinement.id, "worker", 3600)
    waits = stage.submit(make_spec(name="waits"))
    reaper.reap()
    assert stage.search(waits).waiting_for == ""  # a worker may just be about to begin
    with db.transaction(stage.workplace.engine) as session:
        session.get_one(Search, waits).updated_at -= timedelta(seconds=HELD_UP_AFTER_S + 1)
    for _ in range(2):
        reaper.reap()
        assert f"busy: refining trial {trial.number} of 'done'" in stage.search(waits).waiting_for
    with db.transaction(stage.workplace.engine) as session:
        finish_refinement(session, refinement.id, attempt, JobState.FAILED)
    reaper.reap()
    assert stage.search(waits).waiting_for == ""
    stage.deliver()
    assert stage.search(waits).state is SearchState.SUCCEEDED
