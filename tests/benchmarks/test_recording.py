"""Recorded tables: what is recorded is what a trial finds, kills lose nothing, and no broken table is played on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import typer

from benchmarks.record_table import parse_part
from benchmarks.searching.record import Recording, begin, finished, record, recorded
from benchmarks.searching.subject import NAME, enumerate_space, recorded_spec, space_of
from benchmarks.searching.table import FOLDER, NOT_FINITE, Table, TableError, read_table, write_table
from search_spaces.known import Sources
from search_spaces.parse import parse_spec
from workers.base import BaseUnavailableError, load_base
from workers.jobs import evaluate, prepare

HOME = Path(__file__).parents[2] / ".espalier"
DOCUMENT = {
    "name": "small",
    "network": {"family": "mobilenet_v1", "width": 0.1, "input": [1, 8, 8]},
    "dataset": {"name": "digits"},
    "space": {
        "prune_ratio": {"high": 0.5, "step": 0.25, "layers": ["block12.pointwise"]},
        "precision": {"choices": ["w8a8", "w2a2"], "scope": "block"},
    },
    "objectives": [
        {"metric": "accuracy", "direction": "maximize"},
        {"metric": "size_bytes", "direction": "minimize"},
    ],
    "recipe": {"epochs": 2},
    "evaluation": {"calibration_images": 64, "score_images": 120},
    "budget": {"trials": 6, "concurrency": 1000},
}


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recording]:
    before = torch.get_num_threads()
    spec = parse_spec(DOCUMENT)
    yield begin(spec, space_of(spec, ("block13",)), tmp_path_factory.mktemp("home"))
    torch.set_num_threads(before)


def test_a_recording_that_is_killed_and_shared_is_what_trials_find(recording: Recording):
    killed = record(recording, 1, 2)
    assert list(islice(killed, 2)) == [2, 1]
    killed.close()
    (left,) = recording.folder.glob("rows-*.csv")
    kept = left.read_text()
    left.write_text(f"{kept}5,1")  # cut off while it was written
    assert finished(recording) is None
    assert list(record(recording, 1, 2)) == [0]
    assert list(record(recording, 2, 2)) == [2, 1, 0]
    assert list(record(recording, 1, 1)) == []
    assert left.read_text() == f"{kept}5,1"
    table = finished(recording)
    assert table is not None
    assert table.origin["designs"] == len(table.right) == 6
    for number, row in enumerate(enumerate_space(recording.space)):
        design = recording.space.design_at(row)
        found = evaluate(recording.spec, Sources(), design, recording.origin["base"]["base_key"], recording.home)
        assert table.accuracy[number] == pytest.approx(found.values["accuracy"], abs=1e-9)
    assert len(set(table.accuracy)) > 1


def test_the_same_spec_goes_on_and_another_begins_anew(recording: Recording):
    again = begin(recording.spec, recording.space, recording.home)
    assert again.folder == recording.folder
    other = begin(recording.spec, space_of(recording.spec, ("block12",)), recording.home)
    assert other.folder != recording.folder
    assert recorded(other.folder) == {}


def table_of(right: list[int], **origin: object) -> Table:
    said = {"designs": len(right), "images": 100, **origin}
    return Table(np.array(right, np.int16), np.full(len(right), 7, np.uint16), said)


def test_tables_are_read_as_they_were_written(tmp_path: Path):
    write_table(table_of([50, NOT_FINITE, 100]), "t", tmp_path)
    read = read_table("t", tmp_path)
    assert read.accuracy[[0, 2]].tolist() == [0.5, 1.0]
    assert np.isnan(read.accuracy[1])
    assert read.milliseconds.tolist() == [7, 7, 7]


@pytest.mark.parametrize(
    "broken", [table_of([1, 2], designs=3), table_of([101]), table_of([-2]), table_of([1], images="many")]
)
def test_a_table_that_is_not_whole_is_refused(tmp_path: Path, broken: Table):
    write_table(broken, "t", tmp_path)
    with pytest.raises(TableError, match="record it"):
        read_table("t", tmp_path)


def test_a_table_that_is_absent_or_damaged_is_refused(tmp_path: Path):
    write_table(table_of([1]), "t", tmp_path)
    (tmp_path / "t.npz").write_bytes((tmp_path / "t.npz").read_bytes()[:40])
    for name in ("t", "absent"):
        with pytest.raises(TableError, match=f"no table {name}.*record it"):
            read_table(name, tmp_path)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/x", "/", "1/0"])
def test_a_part_that_is_none_is_refused(text: str):
    with pytest.raises(typer.BadParameter, match="write which of how many"):
        parse_part(text)


def test_the_committed_table_is_of_the_space_that_is_played():
    table = read_table(NAME)
    space = space_of(recorded_spec())
    assert {one.name: list(one.choices) for one in space.decisions} == table.origin["decisions"]
    assert len(table.right) == len(enumerate_space(space)) == space.size() == 4096
    assert sum(path.stat().st_size for path in FOLDER.glob(f"{NAME}.*")) < 100_000


def test_the_committed_table_is_what_this_machine_finds():
    """Where its base has been trained, which takes minutes, by the same kind of processor."""
    table = read_table(NAME)
    key = table.origin["base"]["base_key"]
    try:
        load_base(key, HOME)
    except BaseUnavailableError:
        pytest.skip("the base of the recorded table is not here: benchmarks.record_table trains it")
    spec = recorded_spec()
    if prepare(spec, Sources(), HOME)["values"] != table.origin["base"]["values"]:
        pytest.skip("the base here is not that of the recorded table: another kind of processor has trained it")
    space = space_of(spec)
    rows = enumerate_space(space)
    for number in (0, 1234):
        found = evaluate(spec, Sources(), space.design_at(rows[number]), key, HOME)
        # Other processors add in another order: some images of 2,000 may fall on the other side.
        assert found.values["accuracy"] == pytest.approx(table.accuracy[number], abs=0.01)
