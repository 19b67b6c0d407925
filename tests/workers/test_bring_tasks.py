"""The rows of what users bring: claimed, told of, ended once, and found again when a worker or a message was lost."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from search_spaces.importing import ImportSettings
from service import db, leases
from service.datasets.actions import add_dataset
from service.models import ImportedNetwork, OwnDataset
from service.networks.actions import add_network
from service.queue import TaskName
from service.uploads import Upload, remove_unneeded
from tests.workers.stage import MadeUpEvaluator, Stage
from workers.evaluator import FaultKind, JobName
from workers.evaluator_process import Evaluators, JobError
from workers.reaper import Reaper
from workers.workplace import LEASE_S

REFUSED = {"refused": [{"part": "node a", "detail": "is odd; mend it"}, {"part": "", "detail": "b"}], "count": 7}


def upload(content: str = "1") -> Upload:
    return Upload("my.zip", content * 64)


def bring(stage: Stage, kind: str, content: str = "1", *, extend: bool = False) -> None:
    with db.transaction(stage.workplace.engine) as session:
        if kind == "network":
            add_network(session, "mine", upload(content), ImportSettings(resize=40))
        else:
            add_dataset(session, "mine", upload(content), extend=extend)


def rows(stage: Stage, kind: str) -> list[Any]:
    model = ImportedNetwork if kind == "network" else OwnDataset
    with db.reading(stage.workplace.engine) as session:
        return list(session.scalars(select(model).order_by(model.created_at)))


def answer(stage: Stage, result: Any) -> list[tuple[JobName, dict[str, Any]]]:
    """Have jobs end in a made-up way; returns what they were asked."""
    asked: list[tuple[JobName, dict[str, Any]]] = []

    def do(job: JobName, arguments: dict[str, Any]) -> dict[str, Any]:
        asked.append((job, arguments))
        if isinstance(result, Exception):
            raise result
        return dict(result)

    evaluators = Evaluators(lambda: MadeUpEvaluator(do))
    object.__setattr__(stage.workplace, "evaluators", evaluators)
    return asked


both = pytest.mark.parametrize("kind", ["network", "dataset"])


@both
def test_what_was_found_is_written_down_once(stage, kind):
    bring(stage, kind)
    (message,) = stage.messages
    stage.deliver()
    stage.deliver_one(message)  # a message that came twice
    (row,) = rows(stage, kind)
    assert (row.state, row.attempt, row.activity, row.reason) == ("succeeded", 1, None, "")


def test_a_worker_is_told_digests_and_never_paths(stage):
    asked = answer(stage, {"base_key": "a" * 64, "network": {}, "report": {}})
    bring(stage, "network")
    stage.deliver()
    assert asked == [(JobName.IMPORT, {"upload_digest": "1" * 64, "name": "mine", "settings": {"resize": 40}})]


def test_what_is_added_comes_behind_what_was_there(stage):
    bring(stage, "dataset")
    stage.deliver()
    asked = answer(stage, {"digest": "e" * 64, "info": {}, "report": {}, "previews": []})
    bring(stage, "dataset", "2", extend=True)
    stage.deliver()
    assert asked[0][1] == {"name": "mine", "archives": ["1" * 64, "2" * 64], "parent_digest": "1" * 64}


@both
def test_a_refusal_is_kept_with_every_part(stage, kind):
    answer(stage, REFUSED)
    bring(stage, kind)
    stage.deliver()
    (row,) = rows(stage, kind)
    assert row.state == "failed"
    assert row.problem["detail"] == "node a: is odd; mend it; and 6 more"
    assert row.problem["faults"] == REFUSED["refused"]
    assert row.reason == row.problem["detail"]


@both
def test_a_job_that_raises_fails_with_its_reason(stage, kind):
    answer(stage, JobError(FaultKind.CRASHED, "KeyError: nothing there"))
    bring(stage, kind)
    stage.deliver()
    (row,) = rows(stage, kind)
    assert (row.state, row.problem["detail"]) == ("failed", "KeyError: nothing there")


@both
def test_a_process_that_dies_is_tried_again_but_not_for_ever(stage, kind):
    answer(stage, JobError(FaultKind.DIED, "killed by signal 9 (out of memory?)"))
    bring(stage, kind)
    stage.deliver()
    (row,) = rows(stage, kind)
    assert (row.state, row.attempt) == ("failed", leases.MAX_ATTEMPTS)
    assert "out of memory" in row.reason


@both
def test_lost_messages_and_dead_workers_are_noticed(stage, kind):
    reaper = Reaper(stage.workplace.engine, patience_s=3.0)
    bring(stage, kind)
    stage.messages.clear()
    stage.age(60)
    reaper.reap()
    assert len(stage.messages) == 1, "the message is sent again"
    model, task = (ImportedNetwork, TaskName.IMPORT) if kind == "network" else (OwnDataset, TaskName.INDEX)
    for attempt in range(1, leases.MAX_ATTEMPTS + 1):
        (row,) = rows(stage, kind)
        with db.transaction(stage.workplace.engine) as session:
            assert leases.claim(session, model, row.id, "dead", LEASE_S) == attempt
        stage.messages.clear()
        stage.age(LEASE_S + 1)
        reaper.reap()
        assert stage.messages == ([(task, row.id)] if attempt < leases.MAX_ATTEMPTS else [])
    (row,) = rows(stage, kind)
    assert (row.state, row.reason) == ("failed", "its worker died, 5 times")


def test_a_worker_that_was_thought_dead_cannot_end_what_came_after_it(stage):
    bring(stage, "network")
    (first,) = rows(stage, "network")
    answer(stage, REFUSED)
    stage.deliver()
    bring(stage, "network", "2")
    (second,) = rows(stage, "network")
    assert second.id != first.id
    stage.deliver_one((TaskName.IMPORT, first.id))
    assert [row.state for row in rows(stage, "network")] == ["queued"]


def test_files_stay_as_long_as_something_may_be_made_of_them(stage, tmp_path):
    folder = tmp_path / "uploads"
    for content in "1234":
        place = folder / (content * 2) / (content * 64)
        place.parent.mkdir(parents=True)
        place.write_bytes(b"x")

    def left(older_than_s: float) -> str:
        with db.reading(stage.workplace.engine) as session:
            remove_unneeded(session, folder, older_than_s)
        return "".join(sorted(path.name[0] for path in folder.glob("*/*")))

    assert left(3600.0) == "1234", "they have just come"
    bring(stage, "network", "1")
    bring(stage, "dataset", "2")
    assert left(-1.0) == "12"
    stage.deliver()
    assert left(-1.0) == "2", "the network is made, the data set's images are read again"


def test_what_was_left_by_the_killed_is_swept_up(stage, tmp_path):
    folder = tmp_path / "uploads"
    (folder / "ab" / "espalier-unpacked").mkdir(parents=True)
    (folder / "ab" / "espalier-unpacked" / "weights.bin").write_bytes(b"x")
    (folder / ".upload.half").write_bytes(b"x")
    with db.reading(stage.workplace.engine) as session:
        assert remove_unneeded(session, folder, 3600.0) == 0, "somebody may be at it"
        assert remove_unneeded(session, folder, -1.0) == 2
        assert remove_unneeded(session, folder, -1.0) == 0
    assert [path for path in folder.rglob("*") if path.name != "ab"] == []
