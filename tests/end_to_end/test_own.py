"""A network and pictures of an engineer's own: by the command line to a file that does what was said, and by pages."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch.nn.functional as F  # noqa: N812  # everybody calls it F
import yaml
from playwright.sync_api import expect

from tests.end_to_end.running import ESPALIER, Embedded
from tests.workers.on_own import WORDS, digit_pictures, export, own_spec, pack_classes, train

SEARCH_MS = 120_000


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """What lies on the engineer's desk: a model, its classes, a folder of photos and a zip of them."""
    desk = tmp_path_factory.mktemp("desk")
    pictures = digit_pictures()
    (desk / "model.onnx").write_bytes(export(train(*pictures, 10, F.cross_entropy, epochs=4)))
    (desk / "classes.txt").write_text("\n".join(WORDS))
    (desk / "photos.zip").write_bytes(pack_classes(*pictures, WORDS))
    with zipfile.ZipFile(desk / "photos.zip") as archive:
        archive.extractall(desk)
    document = own_spec(
        {"metric": "balanced_accuracy", "direction": "maximize"},
        {"metric": "latency_s", "direction": "minimize", "device": "local-cpu"},
        sampler={"name": "random", "seed": 1},
        budget={"trials": 3, "concurrency": 1},
    ).model_dump(mode="json", exclude_unset=True)
    (desk / "spec.yaml").write_text(yaml.safe_dump(document))
    return desk


def type_in(embedded: Embedded, desk: Path, *words: str, fails: bool = False) -> str:
    environment = os.environ | {
        "ESPALIER_HOME": str(embedded.home),
        "ESPALIER_PORT": str(embedded.port),
        "COLUMNS": "200",
    }
    ran = subprocess.run([ESPALIER, *words], env=environment, cwd=desk, capture_output=True, text=True, check=False)
    assert (ran.returncode != 0) == fails, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def test_from_a_model_and_a_folder_to_a_file_that_does_what_was_said(embedded, desk):
    normal = ("--mean", "0.5", "--std", "0.5", "--classes", "classes.txt")
    said = type_in(embedded, desk, "network", "import", "model.onnx", "--name", "mine", *normal)
    assert re.search(r"can be pruned +\d of \d+ channel groups", said), said
    assert "zero, one, two" in said
    said = type_in(embedded, desk, "dataset", "add", "photos", "--name", "pictures")
    assert re.search(r"images +1,\d{3}: ", said), said
    assert "MIXED" not in said
    assert "different sizes" in said
    assert "mine" in type_in(embedded, desk, "network", "list")
    assert "pictures" in type_in(embedded, desk, "dataset", "list")
    assert type_in(embedded, desk, "network", "show", "mine").count("note: ") == 1
    assert "decisions" in type_in(embedded, desk, "check", "spec.yaml")

    said = type_in(embedded, desk, "submit", "spec.yaml", "--watch")
    search_id = said.splitlines()[0].strip() if re.match("[0-9a-f-]{36}", said) else re.search("[0-9a-f-]{36}", said)[0]
    assert "confirmed trial" in said
    said = type_in(embedded, desk, "export", search_id, "--output", "best.onnx")
    reported = re.search(r"balanced accuracy \(%\) +(\S+)", said)
    assert reported is not None, said
    written = {path.name for path in desk.glob("*best.*")}
    assert written >= {"best.onnx", "best.html", "best.safetensors", "run_best.py", "run_best.cpp"}

    photos = sorted(desk.glob("photos/*/*.png"))[::9]
    ran = subprocess.run([sys.executable, desk / "run_best.py", *photos], capture_output=True, text=True, check=True)
    told = dict(line.split(": ", 1) for line in ran.stdout.splitlines())
    right = sum(told[str(path)].startswith(path.parent.name) for path in photos)
    assert right / len(photos) > float(reported[1]) / 100 - 0.15


def test_try_knows_what_was_brought(embedded, desk):
    said = type_in(embedded, desk, "try", "spec.yaml", "--ratio", "0.5")
    assert "succeeded" in said
    assert "balanced_accuracy" in said


def test_what_cannot_be_used_is_said_by_part(embedded, desk):
    (desk / "broken.onnx").write_bytes((desk / "model.onnx").read_bytes()[:-500])
    said = type_in(embedded, desk, "network", "import", "broken.onnx", "--name", "broken", fails=True)
    assert "could not be imported" in said
    for number, name in enumerate(("cat", "dog", "dog")):
        place = desk / "three" / name / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(sorted(desk.glob("photos/*/*.png"))[number].read_bytes())
    assert "3 different images" in type_in(embedded, desk, "dataset", "add", "three", "--name", "few", fails=True)
    assert "no folders" in type_in(embedded, desk, "dataset", "add", "three/dog", "--name", "one", fails=True)
    assert "no zip file" in type_in(embedded, desk, "dataset", "add", "classes.txt", "--name", "text", fails=True)
    said = type_in(embedded, desk, "network", "import", "model.onnx", "--name", "mine", fails=True)
    assert "another network was imported" in said, "other settings make another network"


def test_bringing_them_on_the_pages(visit, desk):
    page = visit.page
    page.goto("/networks")
    page.get_by_label("File").set_input_files(desk / "model.onnx")
    page.get_by_label("Name").fill("from a page")
    page.get_by_text("How images become its input").click()
    page.get_by_label("Mean").fill("0.5")
    page.get_by_label("Standard deviation").fill("0.5")
    page.get_by_label("Classes").fill("\n".join(WORDS))
    page.get_by_role("button", name="Import").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("from a page")
    expect(page.locator("#facts")).to_contain_text("channel groups", timeout=SEARCH_MS)
    assert page.locator("#groups tbody tr").count() > 3

    page.goto("/datasets")
    page.get_by_label("Archive").set_input_files(desk / "photos.zip")
    page.get_by_label("Name", exact=True).fill("photos from a page")
    page.get_by_role("button", name="Add").click()
    expect(page.locator("#classes tbody tr")).to_have_count(10, timeout=SEARCH_MS)
    pictures = page.locator("#previews img")
    assert pictures.count() == 10
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 100)")

    page.get_by_role("link", name="Search on it").click()
    text = page.input_value("#spec").replace("{name: mine}", "{name: from a page}")
    assert '{name: "photos from a page"}' in text
    page.fill("#spec", text)
    page.get_by_role("button", name="Start the search").click()
    expect(page.locator(".state").first).to_be_visible()
    page.get_by_role("button", name="Cancel").click()


def test_a_form_with_faults_is_shown_again(browser, embedded, desk):
    page = browser.new_page(base_url=embedded.url)
    page.goto("/networks")
    page.get_by_label("File").set_input_files(desk / "model.onnx")
    page.get_by_label("Name").fill("odd/name")
    page.get_by_text("How images become its input").click()
    page.get_by_label("Mean").fill("a half")
    page.get_by_role("button", name="Import").click()
    expect(page.get_by_role("alert")).to_contain_text("/mean")
    assert page.get_by_label("Name").input_value() == "odd/name"
    assert page.get_by_label("Mean").input_value() == "a half"
    page.get_by_label("Mean").fill("0.5")
    page.get_by_label("File").set_input_files(desk / "model.onnx")
    page.get_by_role("button", name="Import").click()
    expect(page.get_by_role("alert")).to_contain_text("/name")
    page.close()
