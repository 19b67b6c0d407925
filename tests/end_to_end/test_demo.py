"""The demo as a newcomer runs it, on a small search: its own service, live lines, front, file, exit status."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import onnx
import psutil
import yaml

from tests.end_to_end.running import ESPALIER, Embedded, digits_spec, running_program, wait_for
from tests.servers import free_port


def run_demo(spec: Path, home: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"ESPALIER_HOME": str(home), "ESPALIER_PORT": str(free_port()), "COLUMNS": "200"}
    return subprocess.run([ESPALIER, "demo", str(spec)], env=environment, capture_output=True, text=True, timeout=240)


def test_from_spec_to_file(embedded: Embedded, first_search: str, tmp_path: Path) -> None:
    home, spec = tmp_path / "home", tmp_path / "spec.yaml"
    shutil.copytree(embedded.home / "bases", home / "bases")  # so that nothing is trained again
    spec.write_text(yaml.safe_dump(digits_spec()))
    result = run_demo(spec, home)
    assert result.returncode == 0, result.stdout + result.stderr
    told = result.stdout
    assert re.search(r"^uniform \d+ \(\d+/\d+\) succeeded: accuracy", told, re.MULTILINE)
    assert "Uniform baseline, treated alike, on the split confirm" in told
    assert re.search(r"^The (designs|search) found", told, re.MULTILINE)
    accuracy = re.search(r"^ accuracy \(%\) +(\S+ \S+) +(\S+ \S+)", told, re.MULTILINE)
    assert accuracy is not None
    assert accuracy[1] == accuracy[2]
    (file,) = home.glob("*.onnx")
    onnx.checker.check_model(onnx.load(file))


def test_a_service_that_cannot_start_is_explained(tmp_path: Path) -> None:
    spec, home = tmp_path / "spec.yaml", tmp_path / "home"
    spec.write_text(yaml.safe_dump(digits_spec()))
    (home / "espalier.db").mkdir(parents=True)
    result = run_demo(spec, home)
    assert result.returncode == 1
    assert "The service did not start" in result.stdout


def test_its_service_ends_with_it(tmp_path: Path) -> None:
    spec, home, port = tmp_path / "spec.yaml", tmp_path / "home", free_port()
    spec.write_text(yaml.safe_dump(digits_spec()))
    environment = {"ESPALIER_HOME": str(home), "ESPALIER_PORT": str(port)}
    with running_program([ESPALIER, "demo", str(spec)], environment, tmp_path / "log") as demo:
        wait_for((home / "espalier.db").exists, 60, (tmp_path / "log").read_text)
        service = psutil.Process(demo.pid).children()
        demo.kill()
    assert len(service) == 1
    _, left = psutil.wait_procs(service, timeout=30)
    assert left == []
