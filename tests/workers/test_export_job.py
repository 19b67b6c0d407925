"""An export of a real search: what it hands out, and that nothing is handed out that is not as it was reported."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from safetensors.numpy import load_file, save

from search_spaces.apply import apply
from search_spaces.design import Design, design_from_json
from search_spaces.design_keys import design_key
from search_spaces.known import Sources
from search_spaces.network import InputContract, Network, Node, Op
from search_spaces.precision import Precision
from search_spaces.spec import SearchSpec
from service.artifacts.store import ARTIFACTS, open_path, path_of, put_bytes
from tests.workers.on_digits import DigitsHome, digits_spec, half, on_local_cpu
from tests.workers.torch_accuracy import accuracy
from workers import export as exporting
from workers.base import load_base
from workers.deployed_file import load_deployed
from workers.jobs import confirm, evaluate, export
from workers.onnx_writer import write_onnx
from workers.packed_weights import unpack_weights
from workers.recount import FileMismatchError
from workers.report import render_report
from workers.report.facts import Exported
from workers.report.layers import layer_rows, legend

EVIL = "<script>alert(1)<b onclick='x'> & \"b\""
NAMES = ["onnx", "html", "safetensors", "packed.safetensors", "py", "cpp"]


@pytest.fixture(autouse=True)
def _threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def spec() -> SearchSpec:
    return digits_spec(limits=[{"metric": "size_bytes", "max": 1000.0}])


@pytest.fixture(scope="module")
def design() -> Design:
    """Half of the channels and groups of two, some of it in floating point."""
    decided = half("w8a8", group_size=2).to_json()
    return Design.of(decided | {f"precision/block{number}": "fp32" for number in (3, 4)})


@pytest.fixture(scope="module")
def confirmed(digits_home: DigitsHome, spec: SearchSpec, design: Design) -> dict[str, Any]:
    return confirm(spec, Sources(), design, digits_home.key, digits_home.folder)


@pytest.fixture(scope="module")
def exported(digits_home: DigitsHome, spec: SearchSpec, design: Design, confirmed: dict[str, Any]) -> dict[str, Any]:
    values, digest = confirmed["values"], confirmed["weights_digest"]
    return export(spec, Sources(), design, digits_home.key, digest, values, digits_home.folder)


@pytest.fixture(scope="module")
def files(exported: dict[str, Any], digits_home: DigitsHome) -> dict[str, Path]:
    """Where each file is, by how its name ends."""
    named = {exported["filename"]: exported["artifact_digest"]}
    named |= {file["filename"]: file["digest"] for file in exported["files"]}
    return {name.partition(".")[2]: open_path(digits_home.folder / ARTIFACTS, one) for name, one in named.items()}


def test_it_hands_out_all_files_under_one_name(exported, files):
    assert list(files) == NAMES
    stem = exported["filename"].removesuffix(".onnx")
    assert [file["filename"] for file in exported["files"]] == [
        *(f"{stem}.{ending}" for ending in ("html", "safetensors", "packed.safetensors")),
        *(f"run_{stem}.{ending}" for ending in ("py", "cpp")),
    ]
    assert all(
        file["size_bytes"] == files[name].stat().st_size
        for file, name in zip(exported["files"], NAMES[1:], strict=True)
    )
    assert exported["files"][0]["media_type"] == "text/html; charset=utf-8"


def test_the_safetensors_file_is_the_onnx_file_to_the_bit(files, design, spec, digits_home):
    deployed = load_deployed(files["safetensors"])
    base = load_base(digits_home.key, digits_home.folder)
    assert deployed.design == design
    assert deployed.origin["network"] == design_key(base.network, design)
    applied = {node.name: node for node in apply(base.network, design).compute_nodes()}
    for node in deployed.network.compute_nodes():
        assert (node.channels, node.groups, node.precision) == (
            applied[node.name].channels,
            applied[node.name].groups,
            applied[node.name].precision,
        )
    model = onnx.ModelProto.FromString(files["onnx"].read_bytes())
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert (
        write_onnx(deployed.network, deployed.weights, deployed.ranges, metadata=metadata) == files["onnx"].read_bytes()
    )
    assert load_file(files["safetensors"]).keys() == deployed.weights.keys()


def test_packed_weights_are_the_same_and_take_the_payload(files, exported):
    deployed, packed = load_deployed(files["safetensors"]), files["packed.safetensors"].read_bytes()
    unpacked = unpack_weights(packed)
    assert all(np.array_equal(unpacked[name], array) for name, array in deployed.weights.items())
    payload = exported["report"]["remeasured"]["size_bytes"]
    assert payload <= sum(array.nbytes for array in load_file(files["packed.safetensors"]).values()) <= 1.01 * payload


def test_nothing_is_packed_where_all_is_in_floating_point(digits_home):
    spec, design = digits_spec(), half("fp32")
    outcome = evaluate(spec, Sources(), design, digits_home.key, digits_home.folder)
    result = again(digits_home, spec, design, None, dict(outcome.values))
    assert not any("packed" in file["filename"] for file in result["files"])


def test_what_was_checked_is_told(exported):
    checks = exported["report"]["details"]["checks"]
    remeasured = exported["report"]["remeasured"]
    assert checks["recounted"] == {name: remeasured[name] for name in ("parameters", "size_bytes")}
    assert [one["runtime"].split()[0] for one in checks["runtimes"]] == ["ONNX", "OpenVINO"]
    assert all(one["difference"] <= one["tolerance"] < 1 for one in checks["runtimes"])
    json.dumps(exported, allow_nan=False)


# --- what is refused --------------------------------------------------------------------------------------------


def again(home: DigitsHome, spec: SearchSpec, design: Design, weights_digest: str | None, reported: dict[str, float]):
    return export(spec, Sources(), design, home.key, weights_digest, reported, home.folder)


@pytest.mark.parametrize("ending", ["onnx", "safetensors"])
def test_a_file_that_was_damaged_where_it_lies_is_not_handed_out(
    ending, files, digits_home, spec, design, confirmed, exported
):
    """Storing the same bytes again does not write them again."""
    whole = files[ending].read_bytes()
    files[ending].write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        with pytest.raises(FileMismatchError, match=rf"stored bytes of .*\.{ending} are not those that were written"):
            again(digits_home, spec, design, confirmed["weights_digest"], confirmed["values"])
    finally:
        files[ending].write_bytes(whole)


def test_damaged_weights_of_a_finalist_are_refused(digits_home, spec, design, confirmed):
    path = path_of(digits_home.folder / ARTIFACTS, confirmed["weights_digest"])
    whole = path.read_bytes()
    path.write_bytes(whole[:-4] + np.float32(3).tobytes())
    try:
        with pytest.raises(FileMismatchError, match="finalist's weights are not those that were written"):
            again(digits_home, spec, design, confirmed["weights_digest"], confirmed["values"])
    finally:
        path.write_bytes(whole)


def test_weights_of_another_design_with_the_same_shapes_are_refused(digits_home, spec, design, confirmed):
    """Only their precision differs, which no array tells."""
    other = Design.of(design.to_json() | {"precision/block3": "w8a8"})
    with pytest.raises(FileMismatchError, match="of another design"):
        again(digits_home, spec, other, confirmed["weights_digest"], confirmed["values"])
    path = open_path(digits_home.folder / ARTIFACTS, confirmed["weights_digest"])
    nameless = put_bytes(digits_home.folder / ARTIFACTS, save(load_file(path)))
    with pytest.raises(FileMismatchError, match="of another design"):
        again(digits_home, spec, design, nameless, confirmed["values"])


LIES = {"parameters": 1, "size_bytes": -1, "macs": 1, "accuracy": 0.2, "peak_activation_bytes": 8}


@pytest.mark.parametrize("name", LIES)
def test_what_was_reported_must_be_what_the_file_has(name, digits_home, spec, design, confirmed):
    reported = confirmed["values"] | {name: confirmed["values"][name] - LIES[name]}
    with pytest.raises(FileMismatchError, match=rf"the file has {name} .*, reported were"):
        again(digits_home, spec, design, confirmed["weights_digest"], reported)


def test_a_score_may_differ_by_what_its_images_can_tell(digits_home, spec, design, confirmed, exported):
    reported = confirmed["values"] | {"accuracy": confirmed["values"]["accuracy"] - 0.005}
    result = again(digits_home, spec, design, confirmed["weights_digest"], reported)
    assert result["report"]["differences"]["accuracy"] == pytest.approx(0.005)


def test_a_writer_that_forgets_a_bias_is_caught(digits_home, spec, design, confirmed, monkeypatch):
    """The file is whole then, and scores nearly the same."""
    write = exporting.write_checked

    def forget(candidate, details, metadata=None):
        model = onnx.ModelProto.FromString(write(candidate, details, metadata))
        next(node for node in model.graph.node if node.name == "block4.pointwise").input.pop()
        return model.SerializeToString()

    monkeypatch.setattr(exporting, "write_checked", forget)
    with pytest.raises(FileMismatchError, match=r"bias of 'block4.pointwise' has the shape None"):
        again(digits_home, spec, design, confirmed["weights_digest"], confirmed["values"])


# --- the report -------------------------------------------------------------------------------------------------


class _Page(HTMLParser):
    """The tags of a page, its text, and what it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.loads: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loads += [f"{name}={value}" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page(files) -> str:
    return files["html"].read_text(encoding="utf-8")


def test_the_report_is_one_page_that_loads_and_runs_nothing(page):
    read = _Page(page)
    assert not read.tags & {"script", "link", "img", "iframe", "object", "form", "a"}
    assert read.loads == []
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_what_people_have_written_is_text_in_it(digits_home, spec, design, confirmed, monkeypatch):
    """Names of searches are plain; those of layers come from files that anyone may have made."""
    seen: list[Exported] = []
    monkeypatch.setattr(exporting, "render_report", lambda exported: seen.append(exported) or "")
    again(digits_home, spec, design, confirmed["weights_digest"], confirmed["values"])
    network = seen[0].network
    nodes = [replace(node, name=EVIL) if node.name == network.output else node for node in network.nodes]
    evil = replace(
        seen[0],
        bench=replace(seen[0].bench, spec=spec.model_copy(update={"name": EVIL})),
        network=replace(network, nodes=tuple(nodes), output=EVIL),
    )
    page = render_report(evil)
    assert "<script" not in page
    assert "<b onclick" not in page
    assert unescape(re.search("<h1>.*</h1>", page)[0]) == f"<h1>{EVIL}</h1>"
    assert _Page(page).text.count(EVIL) == 4  # title, heading, layer, spec


def test_bars_are_coloured_by_bits_and_cut_by_groups():
    contract = InputContract((8, 4, 4), (0.0,) * 8, (1.0,) * 8)
    bits = (1, 2, 3, 4, 8, 16, 32)

    def network(channels: int, groups: int) -> Network:
        layers = [
            Node(
                f"conv{one}", Op.CONV, ("in",), channels, groups=groups, precision=Precision(one, 32 if one > 16 else 8)
            )
            for one in bits
        ]
        return Network("n", contract, (Node("in", Op.INPUT), *layers), "conv1")

    rows = layer_rows(network(8, 1), network(4, 2))
    hues = ["bits-2", "bits-2", "bits-4", "bits-4", "bits-8", "bits-16", "bits-32"]
    assert [row.hue for row in rows] == hues
    assert {(row.channels, row.of, row.share, row.cuts, row.groups) for row in rows} == {
        (4, 8, 50.0, (25.0,), "2 groups of 4")
    }
    (depthwise, *_) = layer_rows(network(8, 1), network(8, 8))
    assert (depthwise.groups, depthwise.cuts, depthwise.share) == ("depthwise", (), 100.0)
    assert [(hue.precision, hue.layers) for hue in legend([*rows, depthwise])][:1] == [("w1a8", 2)]


def test_the_report_shows_every_layer_as_it_was_decided(page, files, digits_home):
    deployed, base = load_deployed(files["safetensors"]), load_base(digits_home.key, digits_home.folder)
    before = base.network.by_name()
    rows = re.findall(r'<td>(\S+)</td>\s*<td class="bar-of">.*?aria-label="(\d+) of (\d+) channels"', page)
    assert [(name, int(kept), int(of)) for name, kept, of in rows] == [
        (node.name, node.channels, before[node.name].channels) for node in deployed.network.compute_nodes()
    ]
    hues = re.findall(r'height="10" class="(bits-\d+)"', page.split('<table class="layers">')[1])
    assert hues == ["bits-32" if node.precision.is_float else "bits-8" for node in deployed.network.compute_nodes()]
    assert "2 groups of 2" in page


def test_the_report_says_where_all_comes_from(page, exported, digits_home, confirmed):
    text = _Page(page).text
    digests = [digits_home.key, exported["artifact_digest"], confirmed["weights_digest"]]
    assert all(digest in text for digest in [*digests, *digits_home.splits.digests().values()])
    assert onnxruntime.__version__ in text
    assert "epochs 20, batch size 32, learning rate 0.05" in text
    assert "schedule one cycle" in text
    assert "flip no" in text
    found = 100 * confirmed["values"]["accuracy"]
    assert text.count(f"{found:.2f} (") == 2
    assert "size at most 1.0 kB" in text
    assert "which misses it" in text
    assert "No device was named" in text


def test_the_report_shows_the_base_beside_it_on_the_same_images(page, digits_home):
    """Scored here by torch, which has no part in how the report gets it."""
    base, split = load_base(digits_home.key, digits_home.folder), digits_home.splits.confirm
    cells = re.search(r'<td>accuracy[^<]*</td><td class="number">([\d.]+) \(', page)
    assert cells is not None
    assert float(cells[1]) == pytest.approx(100 * accuracy(base.network, base.weights, split), abs=0.006)


def test_the_base_is_measured_on_the_device_of_the_report(digits_home):
    spec, design = SearchSpec.model_validate(on_local_cpu()), half("fp32")
    outcome = evaluate(spec, Sources(), design, digits_home.key, digits_home.folder)
    result = again(digits_home, spec, design, None, dict(outcome.values))
    page = open_path(digits_home.folder / ARTIFACTS, result["files"][0]["digest"]).read_text()
    told = re.findall(r'<tr><td>(?:accuracy|latency)[^<]*</td><td class="number">([^<]*)</td>', page)
    assert [float(value.split(" ")[0]) > 0 for value in told] == [True, True]


def test_the_design_can_be_tried_again_from_the_report(page, spec, design):
    texts = {
        name: unescape(re.search(rf'<pre id="{name}">(.*?)</pre>', page, re.DOTALL)[1]) for name in ("spec", "design")
    }
    assert SearchSpec.model_validate(yaml.safe_load(texts["spec"])) == spec
    assert design_from_json(json.loads(texts["design"])) == design


def test_the_report_says_who_found_it_and_what_it_was_worth_at_cheap_steps(digits_home, spec, design, confirmed):
    steps = [{"score_images": 40, "finetune_epochs": 0.0, "values": {"accuracy": 0.25, "size_bytes": 900.0}}]
    steps += [{"score_images": 80, "finetune_epochs": 0.5, "values": {}}]
    found = {"trial": 18, "sampler": "evolution", "rungs": steps}
    arguments = (spec, Sources(), design, digits_home.key, confirmed["weights_digest"], confirmed["values"])
    result = export(*arguments, digits_home.folder, found=found)
    assert result["report"]["details"]["rungs"] == steps
    text = _Page(open_path(digits_home.folder / ARTIFACTS, result["files"][0]["digest"]).read_text()).text
    assert "evolution, seed 0, trial 18" in text
    assert "40 images, 0 epochs of training: accuracy 25.00 %, size 0.9 kB" in text
    assert "80 images, 0.5 epochs of training: nothing that it could be ranked by" in text


def test_a_trial_is_reported_with_the_limits_of_its_figures(digits_home):
    """Scored on the images that it was chosen by; and low bits are emulated."""
    spec, design = digits_spec(), half("w4a8")
    outcome = evaluate(spec, Sources(), design, digits_home.key, digits_home.folder)
    result = again(digits_home, spec, design, None, dict(outcome.values))
    text = _Page(open_path(digits_home.folder / ARTIFACTS, result["files"][0]["digest"]).read_text()).text
    assert "images that the search has chosen by" in text
    assert "made of the base's again" in text
    assert "w4a8: grid values in 8-bit containers" in text
