"""Networks and pictures of an engineer's own through all jobs: brought, prepared, tried, confirmed, exported, run."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # everybody calls it F
from torch import nn

from search_spaces.apply import structure_of
from search_spaces.design import Design
from search_spaces.known import Sources
from search_spaces.network import InputContract, network_from_json
from search_spaces.objectives import TrialState
from service.artifacts.store import ARTIFACTS, open_path
from tests.workers.on_own import (
    WORDS,
    Net,
    Own,
    digit_pictures,
    export,
    own_spec,
    pack_classes,
    pack_values,
    sources,
    train,
)
from workers import jobs
from workers.base import load_base
from workers.datasets.index import SplitNumber
from workers.datasets.kept import find_dataset
from workers.datasets.picture import picture_digest, read_picture
from workers.progress import ignore_progress
from workers.splits import SPLIT_NAMES
from workers.torch_network import build_module

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Own:
    return Own(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def pictures():
    return digit_pictures()


@pytest.fixture(scope="module")
def model(pictures) -> bytes:
    return export(train(*pictures, 10, F.cross_entropy, epochs=6))


@pytest.fixture(scope="module")
def network(own, model) -> dict[str, Any]:
    """Ten digits, named in their own order."""
    return own.network(model, class_names=WORDS)


@pytest.fixture(scope="module")
def photos(pictures) -> bytes:
    return pack_classes(*pictures, WORDS)


@pytest.fixture(scope="module")
def dataset(own, photos) -> dict[str, Any]:
    return own.dataset(photos)


@pytest.fixture(scope="module")
def prepared(own, network, dataset) -> dict[str, Any]:
    return jobs.prepare(own_spec(), sources(network, dataset), own.folder)


def half_of(network: dict[str, Any], **precision: str) -> Design:
    graph = network_from_json(network["network"])
    groups = [group for group in structure_of(graph).coupling.groups if not group.frozen]
    blocks = {f"precision/{node.block}": "w8a8" for node in graph.compute_nodes()} if precision else {}
    return Design.of({f"channels/{group.name}": group.size // 2 for group in groups} | blocks)


# --- brought ----------------------------------------------------------------------------------------------------


def test_what_a_job_says_can_be_stored(network, dataset):
    json.dumps(network, allow_nan=False)
    json.dumps(dataset, allow_nan=False)
    assert {preview["name"] for preview in dataset["previews"]} == set(WORDS)
    assert dataset["info"]["class_names"] == sorted(WORDS)
    assert dataset["info"]["digest"] == dataset["digest"]
    assert network["report"]["class_names"] == list(WORDS)


def test_the_same_things_are_found_by_the_same_names(own, network, dataset, photos):
    assert own.dataset(photos)["digest"] == dataset["digest"]
    base = load_base(network["base_key"], own.folder)
    assert base.class_names == WORDS


def test_what_cannot_be_used_is_told_and_leaves_nothing(own):
    before = sorted((own.folder / "bases").iterdir())
    refused = own.network(b"this is no network")
    assert refused.keys() == {"refused", "count"}
    assert refused["refused"][0]["detail"]
    assert own.dataset(b"PK\x03\x04 this is no archive")["refused"][0]["part"]
    assert sorted((own.folder / "bases").iterdir()) == before


def test_the_same_images_packed_otherwise_are_a_data_set_of_their_own(own, dataset, photos, pictures):
    """Places are those of an archive: what one user adds to theirs must not be looked up in that of another."""
    turned = pack_classes(pictures[0][::-1], pictures[1][::-1], WORDS)
    other = own.dataset(turned)
    assert other["digest"] != dataset["digest"]
    more = pack_classes([picture.transpose(1) for picture in pictures[0][:50]], pictures[1][:50], WORDS)
    for archive, brought in ((turned, other), (photos, dataset)):
        kept = find_dataset(own.dataset(archive, more, parent=brought["digest"])["digest"], own.folder)
        splits = kept.splits(InputContract((1, 8, 8), (0.5,), (0.5,)), ignore_progress)
        assert sum(len(getattr(splits, name)) for name in SPLIT_NAMES) == len(kept.index)


def test_classes_under_other_names_are_scored_anew(own, network, pictures):
    """The same images, split alike, in folders that the network knows by other numbers."""
    few = [number for number, label in enumerate(pictures[1]) if label < 2]
    chosen = [pictures[0][number] for number in few], pictures[1][few]
    right, swapped = (own.dataset(pack_classes(*chosen, names)) for names in (("one", "zero"), ("zero", "one")))
    told = [
        jobs.prepare(own_spec(), sources(network, one), own.folder)["values"]["accuracy"] for one in (right, swapped)
    ]
    assert told[0] < 0.2
    assert told[1] > 0.8


def test_a_network_that_is_imported_again_is_not_written_again(own, model, network):
    """Searches may be reading it."""
    place = own.folder / "bases" / network["base_key"]
    before = place.stat().st_ino
    again = own.network(model, class_names=WORDS)
    assert again["base_key"] == network["base_key"]
    assert place.stat().st_ino == before


def test_images_are_added_to_a_data_set_and_old_ones_keep_their_splits(own, dataset, photos, pictures):
    mirrored = [picture.transpose(0) for picture in pictures[0][:200]]
    grown = own.dataset(photos, pack_classes(mirrored, pictures[1][:200], WORDS), parent=dataset["digest"])
    before, after = (find_dataset(one["digest"], own.folder).index for one in (dataset, grown))
    assert len(after) > len(before)
    known = dict(zip(after.rows.digests.tolist(), after.splits.tolist(), strict=True))
    assert all(known[row] == split for row, split in zip(before.rows.digests.tolist(), before.splits, strict=True))


# --- prepared ---------------------------------------------------------------------------------------------------


def test_a_base_is_scored_by_the_names_of_its_classes(prepared, network):
    assert prepared["values"]["accuracy"] > 0.85
    assert prepared["values"]["accuracy_low"] < prepared["values"]["accuracy"] <= prepared["values"]["accuracy_high"]
    assert prepared["warnings"] == []
    assert prepared["base_key"] != network["base_key"], "batch norms were folded away; the base has them back"
    assert "groups" not in prepared["report"]
    assert prepared["report"]["imported"] == network["base_key"]


def test_norms_that_were_put_back_change_no_output(own, network, prepared):
    imported, settled = (load_base(key, own.folder) for key in (network["base_key"], prepared["base_key"]))
    images = np.random.default_rng(0).standard_normal((4, *imported.network.input.shape)).astype(np.float32)
    with torch.inference_mode():
        first, second = (
            build_module(base.network, base.weights).eval()(torch.from_numpy(images)).numpy()
            for base in (imported, settled)
        )
    np.testing.assert_allclose(second, first, atol=1e-4)
    assert not np.array_equal(imported.weights["stem.0.norm.running_var"], settled.weights["stem.0.norm.running_var"])


def test_classes_in_another_order_without_names_are_warned_of(own, pictures, dataset):
    nameless = own.network(export(train(*pictures, 10, F.cross_entropy, epochs=4)))
    said = jobs.prepare(own_spec(), sources(nameless, dataset), own.folder)
    assert said["values"]["accuracy"] < 0.3
    assert "in another order: import it with their names" in said["warnings"][0]


def test_a_network_that_knows_nothing_is_warned_of(own, pictures, dataset):
    untaught = own.network(export(Net(10)), class_names=WORDS)
    said = jobs.prepare(own_spec(), sources(untaught, dataset), own.folder)
    assert said["values"]["accuracy"] < 0.3
    assert "check the order of the classes, mean and std" in said["warnings"][0]


def test_some_of_a_networks_classes_are_enough(own, network, pictures):
    few = own.dataset(pack_classes(*pictures, WORDS[:3]))
    said = jobs.prepare(own_spec(), sources(network, few), own.folder)
    assert said["values"]["accuracy"] > 0.8


# --- tried, confirmed, exported ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def confirmed(own, network, dataset, prepared) -> dict[str, Any]:
    design = half_of(network, precision="w8a8")
    return jobs.confirm(own_spec(), sources(network, dataset), design, prepared["base_key"], own.folder)


def test_half_of_it_is_tried(own, network, dataset, prepared):
    spec = own_spec({"metric": "f1", "direction": "maximize"}, {"metric": "top5_accuracy", "direction": "maximize"})
    outcome = jobs.evaluate(spec, sources(network, dataset), half_of(network), prepared["base_key"], own.folder)
    assert outcome.state is TrialState.SUCCEEDED, outcome.reason
    assert {"accuracy", "f1", "top5_accuracy", "macs"} <= outcome.values.keys()
    assert outcome.values["accuracy"] > 0.5
    assert outcome.values["top5_accuracy"] >= outcome.values["accuracy"]


def test_fine_tuning_that_does_harm_is_not_kept(own, network, dataset, prepared):
    rough = {"finalists": {"top": 1, "finetune_epochs": 0.5, "learning_rate": 0.5}}
    spec, design = own_spec(evaluation=rough), half_of(network)
    tried = jobs.evaluate(spec, sources(network, dataset), design, prepared["base_key"], own.folder)
    found = jobs.confirm(spec, sources(network, dataset), design, prepared["base_key"], own.folder)
    told = found["details"]["fine_tuning"]
    assert told["before"] == tried.values["accuracy"] > told["after"]
    assert not told["kept"]
    assert found["values"]["accuracy"] > told["after"]


def test_fine_tuning_mends_what_pruning_broke(own, network, dataset, prepared, confirmed):
    tried = jobs.evaluate(
        own_spec(),
        sources(network, dataset),
        half_of(network, precision="w8a8"),
        prepared["base_key"],
        own.folder,
    )
    assert confirmed["values"]["accuracy"] > max(tried.values["accuracy"] - 0.05, 0.7)


@pytest.fixture(scope="module")
def exported(own, network, dataset, prepared, confirmed) -> dict[str, Any]:
    return jobs.export(
        own_spec(),
        sources(network, dataset),
        half_of(network, precision="w8a8"),
        prepared["base_key"],
        confirmed["weights_digest"],
        confirmed["values"],
        own.folder,
    )


def test_a_file_tells_its_classes_and_how_images_become_its_input(own, exported):
    stored = open_path(own.folder / ARTIFACTS, exported["artifact_digest"]).read_bytes()
    told = {entry.key: entry.value for entry in onnx.ModelProto.FromString(stored).metadata_props}
    assert json.loads(told["espalier.classes"]) == list(WORDS)
    assert (told["espalier.task"], told["espalier.input.resize"]) == ("classification", "0")
    assert json.loads(told["espalier.input.mean"]) == [0.5]


def test_the_engineer_finds_the_reported_accuracy_with_the_program_and_the_pictures(
    own, exported, confirmed, dataset, photos, tmp_path
):
    """The pictures as they were handed over, one after the other, through the program that came with the file."""
    for name, digest in [(exported["filename"], exported["artifact_digest"])] + [
        (file["filename"], file["digest"]) for file in exported["files"]
    ]:
        (tmp_path / name).write_bytes(open_path(own.folder / ARTIFACTS, digest).read_bytes())
    program = load_program(tmp_path / f"run_{exported['filename']}".replace(".onnx", ".py"))
    session, right, seen = program.open_session(), 0, 0
    wanted = confirm_digests(own, dataset)
    with zipfile.ZipFile(io.BytesIO(photos)) as archive:
        for name in archive.namelist():
            data = archive.read(name)
            if picture_digest(read_picture(data).image) in wanted:
                (tmp_path / "picture").write_bytes(data)
                outputs = program.run(session, tmp_path / "picture")
                right += program.CLASSES[int(outputs.argmax())] == Path(name).parent.name
                seen += 1
    assert seen == confirmed["values"]["images"] == len(wanted)
    assert right / seen == confirmed["values"]["accuracy"] == exported["report"]["remeasured"]["accuracy"]


def load_program(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("program", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules.pop("program", None)
    return module


def confirm_digests(own: Own, dataset: dict[str, Any]) -> set[int]:
    index = find_dataset(dataset["digest"], own.folder).index
    return set(index.rows.digests[index.splits == SplitNumber.CONFIRM].tolist())


# --- other tasks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("squashed", [False, True])
def test_one_output_tells_two_classes(own, pictures, squashed):
    images, labels = pictures
    rows = np.flatnonzero(labels < 2)
    chosen, targets = [images[row] for row in rows], labels[rows]
    net = train(chosen, targets, 1, lambda z, t: F.binary_cross_entropy_with_logits(z[:, 0], t.float()), epochs=8)
    network = own.network(export(nn.Sequential(net, nn.Sigmoid()) if squashed else net), class_names=WORDS[:2])
    assert network["report"]["left_out"] == ("Sigmoid" if squashed else "")
    dataset = own.dataset(pack_classes(chosen, targets, WORDS[:2]))
    spec = own_spec(
        {"metric": "roc_auc", "direction": "maximize"}, {"metric": "balanced_accuracy", "direction": "maximize"}
    )
    said = jobs.prepare(spec, sources(network, dataset), own.folder)
    assert said["values"]["accuracy"] > 0.9
    assert said["values"]["roc_auc"] > 0.95
    found = jobs.confirm(spec, sources(network, dataset), half_of(network), said["base_key"], own.folder)
    assert found["values"]["balanced_accuracy"] > 0.8, "fine-tuning knows the loss of one output"
    assert found["values"]["roc_auc_low"] <= found["values"]["roc_auc"] <= found["values"]["roc_auc_high"]


@pytest.fixture(scope="module")
def values(pictures) -> np.ndarray:
    """Ink in per mille: a quantity far from 0 and 1."""
    return np.array([np.asarray(one, np.float64).sum() / (16 * 16 * 255) * 1000 for one in pictures[0]]).round(2)


@pytest.fixture(scope="module")
def measured(own, pictures, values) -> dict[str, Any]:
    return own.dataset(pack_values(pictures[0], values))


def test_a_number_is_told_by_a_network_of_ones_own(own, pictures, values, measured):
    scaled = ((values - values.mean()) / values.std()).astype(np.float32)
    net = train(pictures[0], scaled, 1, lambda z, t: F.mse_loss(z[:, 0], t), epochs=6)
    with torch.no_grad():
        net.head.weight.mul_(values.std())
        net.head.bias.mul_(values.std()).add_(values.mean())
    network = own.network(export(net))
    spec = own_spec(
        {"metric": "mean_absolute_error", "direction": "minimize"}, {"metric": "r2", "direction": "maximize"}
    )
    said = jobs.prepare(spec, sources(network, measured), own.folder)
    assert said["values"]["r2"] > 0.8
    assert said["warnings"] == []
    found = jobs.confirm(spec, sources(network, measured), half_of(network), said["base_key"], own.folder)
    assert found["values"]["r2"] > 0.7
    assert "accuracy" not in found["values"]


def test_a_number_is_told_by_a_network_of_the_catalog(own, pictures, values):
    measured = own.dataset(pack_values(pictures[0][:500], values[:500]))
    spec = own_spec(
        {"metric": "mean_absolute_error", "direction": "minimize"},
        network={"family": "resnet_18", "width": 0.125, "input": [1, 16, 16], "stem_stride": 1},
    )
    said = jobs.prepare(spec, Sources(dataset=measured["digest"]), own.folder)
    assert said["values"]["mean_absolute_error"] < 0.5 * np.abs(values - np.median(values)).mean()
    assert said["warnings"] == []


def test_a_network_of_the_catalog_learns_pictures_of_ones_own(own, pictures):
    dataset = own.dataset(pack_classes(pictures[0][:600], pictures[1][:600], WORDS))
    spec = own_spec(network={"family": "mobilenet_v1", "width": 0.25, "input": [1, 16, 16], "stem_stride": 1})
    said = jobs.prepare(spec, Sources(dataset=dataset["digest"]), own.folder)
    assert said["values"]["accuracy"] > 0.85
