"""The command line against a running service, as a person would type it."""

from __future__ import annotations

import hashlib
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine, select
from typer.testing import CliRunner, Result

from search_spaces.objectives import Outcome, TrialState
from service import cli
from service.artifacts.actions import add_artifact
from service.artifacts.store import put_bytes
from service.config import Settings, get_settings
from service.db import reading, transaction
from service.examples import example_path
from service.exports.actions import finish_export, request_export
from service.leases import claim
from service.models import Export, ImportedNetwork, Search
from service.networks.actions import ImportFailedError, fail_import
from service.networks.queries import find_network
from service.searches.actions import move, note_end
from service.searches.queries import lock_search
from service.states import EndReason, JobState, SearchState
from service.trials.queries import get_trial
from tests.service.builders import add_running_search, add_trial_rows, example_spec, run_trial, stopped, success

TRIALS = example_spec()["budget"]["trials"]

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def here(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands talk to the running service."""
    monkeypatch.setenv("ESPALIER_PORT", str(client.base_url.port))
    monkeypatch.setenv("COLUMNS", "200")
    get_settings.cache_clear()


@pytest.fixture
def search_id(engine: Engine) -> str:
    search_id = add_running_search(engine)
    (uniform,) = add_trial_rows(engine, search_id, 1, baseline=True)
    good, large = add_trial_rows(engine, search_id, 2)
    run_trial(engine, uniform.id, success(0.9, 0.0012))
    run_trial(engine, good.id, success(0.91, 0.0007))
    run_trial(engine, large.id, Outcome(TrialState.INFEASIBLE, {"size_bytes": 3e5}, "too large"))
    return search_id


def run(arguments: Sequence[str]) -> Result:
    return CliRunner().invoke(cli.app, list(arguments))


@pytest.mark.usefixtures("here")
class TestWithService:
    def test_submit_and_list(self, engine: Engine) -> None:
        result = run(["submit", str(example_path())])
        assert result.exit_code == 0
        with reading(engine) as session:
            (search,) = session.scalars(select(Search))
        assert result.stdout.strip() == search.id
        assert search.id[:8] in run(["list"]).stdout

    def test_a_bad_spec_is_a_table_of_faults(self, tmp_path: Path) -> None:
        spec = tmp_path / "spec.yaml"
        spec.write_text(example_path().read_text().replace("width: 0.5", "widht: 0.5"))
        result = run(["submit", str(spec)])
        assert result.exit_code == 1
        assert "/network/widht" in result.stderr

    def test_show_takes_the_beginning_of_an_id(self, search_id: str) -> None:
        result = run(["show", search_id[:6]])
        assert search_id in result.stdout
        assert f"3 of {1 + TRIALS} (1 infeasible)" in result.stdout

    def test_show_and_watch_tell_why_there_are_no_more_trials(self, engine: Engine, search_id: str) -> None:
        (behind,) = add_trial_rows(engine, search_id, 1)
        run_trial(engine, behind.id, stopped(0.7, 0.001))
        with transaction(engine) as session:
            search = lock_search(session, search_id)
            note_end(search, EndReason.PLATEAU, "the front has stopped growing")
            move(session, search, SearchState.SUCCEEDED)
        shown = run(["show", search_id]).stdout
        assert "4 of 4 (1 infeasible, 1 stopped)" in shown
        assert re.search(r"no more trials +the front has stopped growing", shown)
        lines = run(["watch", search_id]).stdout.splitlines()
        assert "no more trials: the front has stopped growing" in lines
        assert "trial 3 (4/4) stopped: accuracy 70.00 %, latency 1.000 ms; place 9 of 9 at step 2 of 3" in lines

    def test_front_beside_the_baseline(self, search_id: str) -> None:
        lines = run(["front", search_id]).stdout.splitlines()
        uniform = next(index for index, line in enumerate(lines) if line.startswith("Uniform baseline"))
        assert any("91.00" in line for line in lines[:uniform])
        assert any("90.00" in line for line in lines[uniform:])

    def test_front_as_a_picture(self, search_id: str, tmp_path: Path) -> None:
        picture = tmp_path / "front.svg"
        assert str(picture) in run(["front", search_id, "--svg", str(picture)]).stdout.replace("\n", "")
        drawn = ElementTree.parse(picture).getroot()
        assert {"point front", "point uniform"} <= {element.get("class") for element in drawn.iter()}

    def test_pause_resume_cancel(self, search_id: str) -> None:
        for verb, state in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
            assert f"is {state}" in run([verb, search_id]).stdout

    def test_what_is_not_possible_is_said(self, engine: Engine, search_id: str) -> None:
        run(["cancel", search_id])
        result = run(["pause", search_id])
        assert result.exit_code == 1
        assert "cancelled" in result.stderr

    def test_watch_follows_to_the_end(self, engine: Engine, search_id: str) -> None:
        with transaction(engine) as session:
            move(session, lock_search(session, search_id), SearchState.SUCCEEDED)
        result = run(["watch", search_id])
        assert result.exit_code == 0
        assert "uniform 0 (1/3) succeeded: accuracy 90.00 %, latency 1.200 ms" in result.stdout
        assert "trial 2 (3/3) infeasible: too large" in result.stdout

    def test_watching_a_search_that_fails_exits_with_1(self, engine: Engine, search_id: str) -> None:
        run(["cancel", search_id])
        assert run(["watch", search_id]).exit_code == 1

    def test_export(self, engine: Engine, settings: Settings, search_id: str, tmp_path: Path) -> None:
        fulfil_export(engine, settings, search_id, number=1, data=b"a network")
        result = run(["export", search_id, "--trial", "1", "-o", str(tmp_path / "out.onnx")])
        assert result.exit_code == 0
        assert (tmp_path / "out.onnx").read_bytes() == b"a network"
        assert "out.onnx (9 bytes): the network, for ONNX Runtime" in result.stdout
        assert "91.00" in result.stdout
        assert "(trial 1, refined: 1.5 epochs at a learning rate of 0.01)" in " ".join(result.stdout.split())
        refused = run(["export", search_id, "--trial", "1", "-o", str(tmp_path / "out.v2")])
        assert refused.exit_code == 2
        assert "ends in .onnx" in refused.stderr

    def test_words_of_others_do_nothing_to_the_terminal(self, client: httpx.Client, engine: Engine) -> None:
        client.post("/v1/networks", data={"name": "odd"}, files={"file": b"x"})
        with transaction(engine) as session:
            row = find_network(session, "odd")
            assert row is not None
            attempt = claim(session, ImportedNetwork, row.id, "worker", 60)
            assert attempt is not None
            faults = [{"part": "node \x1b]0;owned\x07", "detail": "is \x1b[31modd"}]
            fail_import(session, row.id, attempt, ImportFailedError("odd", extra={"faults": faults}).document())
        result = run(["network", "show", "odd"])
        assert "odd" in result.stdout
        assert "\x1b" not in result.stdout
        assert "\x07" not in result.stdout

    def test_no_such_search(self) -> None:
        result = run(["show", "nothing"])
        assert result.exit_code == 1
        assert "no search begins with" in result.stderr.replace("begin ", "begins ")


def fulfil_export(engine: Engine, settings: Settings, search_id: str, number: int, data: bytes) -> None:
    """Do what a worker does."""
    digest = put_bytes(settings.artifacts_folder, data)
    assert digest == hashlib.sha256(data).hexdigest()
    with transaction(engine) as session:
        export, _ = request_export(session, get_trial(session, search_id, number)[0])
    with transaction(engine) as session:
        attempt = claim(session, Export, export.id, "worker", 60)
        assert attempt is not None
        report = {"reported": {"accuracy": 0.91}, "remeasured": {"accuracy": 0.91}}
        report["weights"] = {"origin": "refined", "epochs": 1.5, "learning_rate": 0.01}
        add_artifact(session, digest, "a.onnx", "application/onnx", len(data))
        finish_export(session, export.id, attempt, JobState.SUCCEEDED, files=[digest], report=report)


@pytest.mark.usefixtures("settings")
class TestWithoutService:
    def test_it_says_how_to_start_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ESPALIER_PORT", "9")
        get_settings.cache_clear()
        result = run(["list"])
        assert result.exit_code == 1
        assert "espalier up" in result.stderr

    def test_check(self) -> None:
        result = run(["check", str(example_path())])
        assert result.exit_code == 0
        assert "uniform ones as the baseline" in result.stdout

    def test_check_finds_faults(self, tmp_path: Path) -> None:
        spec = tmp_path / "spec.yaml"
        spec.write_text(example_path().read_text().replace('"*.depthwise"', '"*.nothing"'))
        result = run(["check", str(spec)])
        assert result.exit_code == 1
        assert "/space/group_size/layers" in result.stderr

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["export", "a", "--trial", "1", "--knee"], "give --trial or --knee"),
            (["estimate", str(example_path()), "--seed", "3"], "give --sample, or leave --seed out"),
            (["try", str(example_path()), "--design", "{}", "--group-size", "2"], "give --design, or --group-size"),
            (["device", "profile", "local-cpu", "--network", "mine", "--width", "0.5"], "--width are of catalog"),
        ],
    )
    def test_an_option_that_would_be_ignored_is_refused(
        self, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TERMINAL_WIDTH", "200")
        monkeypatch.setenv("COLUMNS", "200")
        result = run(arguments)
        assert result.exit_code == 2
        assert message in result.stderr

    def test_help_lists_both_halves(self) -> None:
        listed = run(["--help"]).stdout
        assert all(f" {name} " in listed for name in ("up", "submit", "try", "worker"))
