"""The pages in a real browser against a real service: read, submitted through, followed live, exported from."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import yaml
from playwright.sync_api import Browser, expect

from tests.end_to_end.running import Embedded, digits_spec
from tests.end_to_end.visits import Visit
from workers.deployed_file import load_deployed

SEARCH_MS = 120_000


def test_a_finished_search(visit: Visit, first_search: str) -> None:
    page = visit.page
    page.goto("/")
    page.locator(f'a[href="/searches/{first_search}"]').click()
    expect(page.locator(".state").first).to_have_text("succeeded")
    expect(page.locator("svg.plot .point.uniform").first).to_be_visible()
    expect(page.locator("#confirmed")).to_contain_text("uniform")
    assert page.locator("#trials tbody tr").count() == page.locator("#trials tbody td.wide").count() > 3


def test_submitting_and_following_a_search(visit: Visit, first_search: str) -> None:
    page = visit.page
    page.goto("/searches/new")
    assert "mobilenet_v1" in page.input_value("#spec")
    page.fill("#spec", yaml.safe_dump(digits_spec(name="from the browser", sampler={"name": "grid"})))
    page.get_by_role("button", name="Start the search").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("from the browser")
    page.evaluate("window.isStillTheSamePage = true")
    expect(page.locator(".state").first).to_have_text("succeeded", timeout=SEARCH_MS)
    assert page.evaluate("window.isStillTheSamePage")
    expect(page.locator("svg.plot")).to_be_visible()
    expect(page.locator("#front tbody tr").first).to_be_visible()


def test_exporting(visit: Visit, first_search: str, tmp_path: Path) -> None:
    page = visit.page
    page.goto(f"/searches/{first_search}")
    page.get_by_role("button", name="Export as ONNX").click()
    link = page.locator("#exports a[download$='.onnx']")
    link.wait_for(timeout=SEARCH_MS)
    expect(page.locator("#exports")).to_contain_text("of the file itself")
    with page.expect_download() as download:
        link.click()
    file = tmp_path / "design.onnx"
    download.value.save_as(file)
    onnx.checker.check_model(onnx.load(file))
    for ending in (".py", ".cpp"):
        assert page.locator(f"#exports a[download^='run_'][download$='{ending}']").count() == 1
    with page.expect_download() as download:
        page.locator("#exports a[download$='.safetensors']").first.click()
    download.value.save_as(tmp_path / "design.safetensors")
    assert {node.name for node in load_deployed(tmp_path / "design.safetensors").network.compute_nodes()} <= {
        node.name for node in onnx.load(file).graph.node
    }


@pytest.mark.parametrize("width", [1280, 400])
def test_the_report_of_an_export(visit: Visit, first_search: str, width: int) -> None:
    """It is read where it is served, and fits on a phone; nothing in it asks for anything."""
    page = visit.page
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"/searches/{first_search}")
    page.get_by_role("button", name="Export as ONNX").click()
    page.locator("#exports a[href^='/v1/artifacts/']:not([download])").first.click(timeout=SEARCH_MS)
    expect(page.locator("#layers tbody tr")).to_have_count(28)
    expect(page.locator("#checks")).to_contain_text("OpenVINO")
    expect(page.locator("#figures")).to_contain_text("accuracy")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    bars = page.locator(".bar-of svg").first.bounding_box()
    assert bars is not None
    assert bars["width"] > 60
    page.get_by_text("Spec", exact=True).click()
    expect(page.locator("#spec")).to_contain_text("mobilenet_v1")
    # No script runs in it, and that includes the ones that this test looks at it by.
    blocked = [one for one in visit.complaints if one.startswith("Blocked script execution")]
    assert visit.complaints == blocked != []
    visit.complaints.clear()


def test_refining(visit: Visit, first_search: str) -> None:
    page = visit.page
    page.goto(f"/searches/{first_search}")
    page.select_option("#refine-trial", index=0)
    page.fill("#refine-epochs", "3")
    page.fill("#refine-learning-rate", "0.004")
    page.get_by_role("button", name="Refine").click()
    section = page.locator("#refinements")
    expect(section).to_contain_text("3 epochs at a learning rate of 0.004")
    expect(section.locator(".state").first).to_have_text("succeeded", timeout=SEARCH_MS)
    expect(section).to_contain_text("refined, on confirm")
    assert section.locator("tbody tr").count() >= 2


def test_faults_are_shown_in_place_and_the_text_is_kept(browser: Browser, embedded: Embedded) -> None:
    page = browser.new_page(base_url=embedded.url)
    page.goto("/searches/new")
    broken = page.input_value("#spec").replace("width: 0.5", "widht: 0.5")
    page.fill("#spec", broken)
    page.get_by_role("button", name="Start the search").click()
    expect(page.get_by_role("alert")).to_contain_text("/network/widht")
    assert page.input_value("#spec") == broken
    line = 1 + [text.startswith("network") for text in broken.splitlines()].index(True)
    message = page.locator("#gutter li").nth(line - 1)
    expect(message).to_contain_text("unknown key")
    beside, text = message.bounding_box(), page.locator("#spec").bounding_box()
    assert beside is not None
    assert text is not None
    assert text["y"] + 20 * (line - 1) <= beside["y"] + 10 <= text["y"] + 20 * (line + 1)
    page.get_by_role("link", name=f"line {line}").click()
    assert page.evaluate("document.activeElement.id") == "spec"
    page.close()


def test_pages_work_without_scripts(browser: Browser, embedded: Embedded, first_search: str) -> None:
    page = browser.new_context(base_url=embedded.url, java_script_enabled=False).new_page()
    page.goto(f"/searches/{first_search}")
    expect(page.locator("svg.plot")).to_be_visible()
    page.goto("/searches/new")
    page.get_by_role("button", name="Start the search").click()
    expect(page.locator(".state").first).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    assert page.locator(".state").first.inner_text().startswith("cancel")
    page.context.close()
