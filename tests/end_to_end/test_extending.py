"""The page on extending, as its readers would follow it: the package is installed, proved, and searched with."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.end_to_end.running import ESPALIER, Embedded, running_embedded

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
BLOCK = re.compile(r"^```\w+\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMES = {"worst_recall", "median_distance", "mutation", "flash-model", "stripes"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed packages with the page's own, as pip would leave it there."""
    site = tmp_path_factory.mktemp("site")
    for name, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_text(text, encoding="utf-8")
    (site / "leaves" / "__init__.py").touch()
    project = tomllib.loads((site / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    told = site / f"{project['name']}-{project['version']}.dist-info"
    told.mkdir()
    (told / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [
        line
        for group, points in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {place}" for name, place in points.items()))
    ]
    (told / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return site


@pytest.fixture(scope="module")
def beside(site: Path) -> Iterator[Embedded]:
    """A service whose workers have the package."""
    with running_embedded(site / "running", {"PYTHONPATH": str(site)}) as embedded:
        yield embedded


def run(site: Path, *command: str, **environment: str) -> str:
    """Its output; it must succeed."""
    surroundings = os.environ | {"PYTHONPATH": str(site), "COLUMNS": "200"} | environment
    ran = subprocess.run(command, cwd=site, env=surroundings, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_each_part_keeps_its_contract(site: Path) -> None:
    said = run(site, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "test_leaves.py")
    passed = re.search(r"(\d+) passed", said)
    assert passed is not None, said
    assert int(passed[1]) > 40
    assert "skipped" not in said


def test_a_search_uses_all_of_them(site: Path, beside: Embedded) -> None:
    offered = {
        item["name"]
        for noun in ("metrics", "importances", "samplers", "devices", "datasets")
        for item in beside.get(noun)["items"]
    }
    assert offered >= NAMES
    here = {"ESPALIER_HOME": str(beside.home), "ESPALIER_PORT": str(beside.port)}
    said = run(site, ESPALIER, "submit", "leaves.yaml", "--watch", **here)
    identity = re.search("[0-9a-f-]{36}", said)
    assert identity is not None, said
    search = beside.search(identity[0])
    assert search["state"] == "succeeded", said
    trials = beside.trials(identity[0])
    assert all(trial["state"] == "succeeded" for trial in trials), trials
    assert all(0 <= trial["values"]["worst_recall"] <= 1 for trial in trials)
    assert len([trial for trial in trials if not trial["baseline"]]) == 8
    sizes = {trial["values"]["latency_s"]: trial["values"]["size_bytes"] for trial in trials}
    assert sizes[min(sizes)] < sizes[max(sizes)], "the device counts bytes of weights"
    assert "worst recall" in run(site, ESPALIER, "export", identity[0], "--knee", **here)


def test_one_design_can_be_tried_here(site: Path, beside: Embedded) -> None:
    here = {"ESPALIER_HOME": str(beside.home)}
    assert "decisions" in run(site, ESPALIER, "check", "leaves.yaml", **here)
    said = run(site, ESPALIER, "try", "leaves.yaml", "--ratio", "0.4", "--precision", "w8a8", **here)
    assert "worst_recall" in said
    assert "succeeded" in said


def test_a_service_without_it_refuses_every_name(site: Path, embedded: Embedded) -> None:
    spec = yaml.safe_load((site / "leaves.yaml").read_text())
    faults = faults_of(embedded, spec)
    assert faults.keys() == {"/dataset/name", "/objectives/0/metric", "/sampler/name", "/evaluation/importance"}
    assert "nsga2" in faults["/sampler/name"], "the names that there are"


def faults_of(service: Embedded, spec: dict[str, Any]) -> dict[str, str]:
    answer = httpx.post(f"{service.url}/v1/searches/check", json=spec, timeout=30)
    assert answer.status_code == 422, answer.text
    return {fault["pointer"]: fault["detail"] for fault in answer.json()["errors"]}
