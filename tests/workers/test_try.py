"""`espalier try` as it is typed: stages with their times, values, and bad input told in a line each."""

from __future__ import annotations

import json
import re

import pytest
import torch
import yaml
from typer.testing import CliRunner

from search_spaces.check import check_spec
from search_spaces.parse import parse_spec
from service.cli import app
from tests.workers.on_digits import digits_document, half, on_local_cpu
from workers.announce import local_known
from workers.try_design import uniform_design

STAGES = ("slice", "reconstruct", "fold", "calibrate", "write", "check", "score")


@pytest.fixture(autouse=True)
def _threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def try_spec(digits_home, tmp_path):
    """Types the command for a spec; returns its exit code and what it printed."""

    def run(document, *options: str) -> tuple[int, str]:
        path = tmp_path / "spec.yaml"
        path.write_text(yaml.safe_dump(document))
        arguments = ["try", str(path), "--home", str(digits_home.folder), *options]
        result = CliRunner().invoke(app, arguments, env={"COLUMNS": "120", "TERM": "dumb"})
        return result.exit_code, result.output

    return run


def stages_in(text: str) -> dict[str, float]:
    return {name: float(seconds) for name, seconds in re.findall(r"^\s*(\w+)\s+(\d+\.\d{3})\s*$", text, re.MULTILINE)}


def test_it_prints_what_each_stage_takes_and_what_came_out(try_spec):
    code, text = try_spec(on_local_cpu(), "--ratio", "0.5", "--precision", "w8a8", "--group-size", "2")
    assert code == 0
    assert {*STAGES, "measure"} <= stages_in(text).keys()
    assert stages_in(text)["measure"] > 0.5
    assert re.search(r"accuracy +0\.9\d* +0\.\d+", text), "the base beside the design"
    assert re.search(r"latency_s +\S+", text)
    assert "succeeded" in text


def test_a_design_can_be_named_by_its_decisions(try_spec, tmp_path):
    text = json.dumps(half("w8a8").to_json())
    path = tmp_path / "design.json"
    path.write_text(text)
    spoken, stored = try_spec(digits_document(), "--design", text), try_spec(digits_document(), "--design", str(path))
    assert spoken[0] == stored[0] == 0
    assert set(STAGES) <= stages_in(spoken[1]).keys()
    values = [
        re.findall(r"^\s*(\w+)\s+(?:[\d.,]+\s+)?([\d.,]+)\s*$", out.split("digits here")[1], re.MULTILINE)
        for _, out in (spoken, stored)
    ]
    assert values[0] == values[1]
    assert len(values[0]) >= 6


def test_a_missed_limit_is_no_error(try_spec):
    code, text = try_spec(digits_document(limits=[{"metric": "size_bytes", "max": 200_000}]))
    assert code == 0
    assert "infeasible" in text
    assert "exceeds the limit 200,000" in text


@pytest.mark.parametrize(
    ("changes", "options", "expected"),
    [
        ({"dataset": {"name": "no-such"}}, (), "/dataset/name"),
        ({"colour": "green"}, (), "/colour"),
        ({}, ("--design", '{"channels/nothing": 3}'), "channels/nothing"),
        ({}, ("--design", '{"nonsense": 3}'), "nonsense"),
        ({}, ("--design", "{"), "design"),
        ({}, ("--design", "missing.json"), "missing.json"),
        ({}, ("--precision", "w3a3"), "w3a3"),
        ({}, ("--design", "{}", "--ratio", "0.5", "--precision", "w8a8"), "give --design, or --ratio or --precision"),
        ({"space": {"prune_ratio": {"high": 0.5}}}, ("--group-size", "2"), "--group-size: the space of this spec does"),
    ],
)
def test_bad_input_is_told_before_any_work(changes, options, expected, try_spec):
    code, text = try_spec(digits_document(**changes), *options)
    assert code == 2
    assert expected in text
    assert "Traceback" not in text


def test_few_bits_everywhere_leave_eight_to_the_first_and_last_layer():
    document = digits_document()
    document["space"]["precision"]["choices"] = ["fp32", "w4a4"]
    space = check_spec(parse_spec(document), local_known()).space
    design = uniform_design(space, 0.0, "w4a4", None)
    assert (design["precision/stem"], design["precision/block1"], design["precision/classifier"]) == (
        "w8a8",
        "w4a4",
        "w8a8",
    )
    assert space.contains(design)


@pytest.mark.parametrize("varied", [{"importance": {"choices": ["l2", "l1"]}}, {"groups": {"choices": [4, 2]}}])
def test_what_has_no_value_of_the_base_is_as_in_the_uniform_baseline(varied):
    space = {"prune_ratio": {"high": 0.5, "step": 0.5}} | varied
    built = check_spec(parse_spec(digits_document(space=space)), local_known()).space
    assert uniform_design(built, 0.5, None, None) in built.uniform
