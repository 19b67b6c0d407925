"""The four jobs on real images: what they return, when they stop early, and that an exported file keeps its promise."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import workers.checkpoint
import workers.train
from search_spaces.apply import DesignError, apply
from search_spaces.catalog import build_for
from search_spaces.check import check_spec
from search_spaces.costs import network_workload, symbolic_values
from search_spaces.datasets import DATASETS
from search_spaces.design import Design
from search_spaces.design_keys import design_key
from search_spaces.known import Sources
from search_spaces.network import Network
from search_spaces.objectives import SYMBOLIC_METRICS, TrialState
from search_spaces.scores import wilson_interval
from search_spaces.spec import SearchSpec
from service.artifacts.store import ARTIFACTS, open_path
from tests.workers.on_digits import SCORE_IMAGES, DigitsHome, digits_spec, half, on_local_cpu
from workers.announce import local_known
from workers.appraise import build
from workers.evaluator import JobName
from workers.evaluator_process import Evaluator
from workers.jobs import confirm, evaluate, export, prepare, refine
from workers.recipe import count_steps, recipe_for
from workers.tune import TUNINGS
from workers.weights import check_weights
from workers.weights_file import load_weights, save_weights
from workers.workbench import set_up

NO_BASE = "0" * 64


@pytest.fixture(autouse=True)
def _threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def confirmed(digits_home: DigitsHome):
    return confirm(digits_spec(), Sources(), half("w8a8"), digits_home.key, digits_home.folder)


def base_network() -> Network:
    return build_for(digits_spec().network, DATASETS["digits"])


def limited(metric: str, **bounds) -> SearchSpec:
    device = {"device": "local-cpu"} if metric == "latency_s" else {}
    return SearchSpec.model_validate(on_local_cpu(limits=[{"metric": metric, **device, **bounds}]))


# --- prepare ----------------------------------------------------------------------------------------------------


def test_a_base_is_trained_once_and_then_found(digits_home):
    again = prepare(digits_spec(), Sources(), digits_home.folder)
    assert not digits_home.prepared["cached"]
    assert again["cached"]
    assert again["base_key"] == digits_home.key
    assert again["values"] == digits_home.prepared["values"]
    assert again["values"]["accuracy"] > 0.9
    assert again["warnings"] == []
    assert again["splits"] == digits_home.splits.digests()
    assert again["anchor"] == {}
    json.dumps(again)


def test_a_recipe_of_its_own_makes_a_base_of_its_own(tmp_path):
    recipe = {"epochs": 1, "optimizer": "adamw", "regulariser": {"name": "margin", "weight": 0.02}, "seed": 2}
    spec = digits_spec(recipe=recipe)
    prepared = prepare(spec, Sources(), tmp_path)
    assert not prepared["cached"]
    assert prepare(spec, Sources(), tmp_path)["base_key"] == prepared["base_key"]
    told = prepared["report"]["recipe"]
    assert told["regulariser"] == {"name": "margin", "weight": 0.02}
    assert (told["optimizer"], told["epochs"], told["seed"]) == ("adamw", 1, 2)
    assert len(prepared["report"]["margin"]) == 28
    other = digits_spec(recipe=recipe | {"seed": 3})
    assert prepare(other, Sources(), tmp_path)["base_key"] != prepared["base_key"]


def test_a_recipe_that_says_nothing_new_finds_the_usual_base(digits_home):
    usual = prepare(digits_spec(recipe={"optimizer": "sgd", "schedule": "one_cycle"}), Sources(), digits_home.folder)
    assert usual["cached"]
    assert usual["base_key"] == digits_home.key


def test_fine_tuning_follows_the_base_where_the_spec_says_so(digits_home):
    evaluation = {"calibration_images": 144, "score_images": 80, "finetune_epochs": 0.3, "learning_rate": 0.01}
    asked: list[dict[str, object]] = [{}, {"distillation": {"weight": 0.9}}, {"activation_l1": 1e-3}]
    digests = set()
    for more in asked:
        spec = digits_spec(evaluation=evaluation | more)
        bench = set_up(spec, Sources(), digits_home.key, digits_home.folder)
        candidate, _ = build(bench, half("fp32"), {"stage_s": {}})
        digests.add(hashlib.sha256(candidate.raw_weights["classifier.weight"].tobytes()).hexdigest())
    assert len(digests) == 3


def test_a_fine_tuning_that_was_stopped_goes_on_and_ends_the_same(digits_home, monkeypatch):
    evaluation = {"calibration_images": 144, "score_images": 80, "finetune_epochs": 0.3, "learning_rate": 0.01}
    spec = digits_spec(evaluation=evaluation | {"distillation": {}})
    bench = set_up(spec, Sources(), digits_home.key, digits_home.folder)
    whole, _ = build(bench, half("fp32"), {"stage_s": {}})
    kept = digits_home.folder / TUNINGS
    monkeypatch.setattr(workers.checkpoint, "EVERY_S", 0.0)
    steps: list[str] = []

    def watch(_stage: str, done: float, message: str) -> None:
        steps.append(message)
        if done > 0.5 and len(list(kept.iterdir())) and not any("stopped" in step for step in steps):
            steps.append("stopped")
            raise KeyboardInterrupt

    monkeypatch.setattr(workers.train, "_PROGRESS_EVERY_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        build(bench, half("fp32"), {"stage_s": {}}, watch)
    until_stopped = len(steps)
    again, _ = build(bench, half("fp32"), {"stage_s": {}}, watch)
    assert 0 < len(steps) - until_stopped < until_stopped
    assert list(kept.iterdir()) == []
    assert all(np.array_equal(again.raw_weights[name], array) for name, array in whole.raw_weights.items())


def test_a_device_needs_an_anchor_which_is_measured_once(digits_home):
    spec = SearchSpec.model_validate(on_local_cpu())
    first, second = (prepare(spec, Sources(), digits_home.folder)["anchor"] for _ in range(2))
    assert json.loads(json.dumps(first)) == second
    assert 0 < first["latency_s"] < 1
    assert first["measurements"][0]["provenance"] == "measured"


# --- evaluate ---------------------------------------------------------------------------------------------------


def test_a_design_is_measured_scored_and_proved(digits_home):
    spec = SearchSpec.model_validate(on_local_cpu())
    design = half("w8a8", group_size=2)
    outcome = evaluate(spec, Sources(), design, digits_home.key, digits_home.folder)
    applied = apply(base_network(), design)
    assert outcome.state is TrialState.SUCCEEDED
    assert outcome.reason == ""
    assert outcome.values.keys() == {*SYMBOLIC_METRICS, "accuracy", "latency_s"}
    assert symbolic_values(applied).items() <= outcome.values.items()
    assert set(outcome.details["executed"]) == {node.name for node in applied.compute_nodes()}
    assert {operator[0] for operator in outcome.details["executed"].values()} == {"Q"}
    (measurement,) = outcome.details["measurements"]
    assert measurement["device"] == "local-cpu"
    assert measurement["workload"] == network_workload(applied).to_json()
    assert (outcome.details["images"]["split"], outcome.details["images"]["count"]) == ("score", SCORE_IMAGES)
    assert outcome.values["accuracy"] * SCORE_IMAGES == pytest.approx(round(outcome.values["accuracy"] * SCORE_IMAGES))
    assert min(outcome.details["stage_s"].values()) > 0
    json.dumps(outcome.details, allow_nan=False)


def test_a_design_is_made_by_the_methods_that_it_names(digits_home):
    def weights_of(**named: str):
        bench = set_up(digits_spec(), Sources(), digits_home.key, digits_home.folder)
        design = Design.of({**half("w8a8"), **{f"{kind}/network": method for kind, method in named.items()}})
        return build(bench, design, {"stage_s": {}})[0]

    usual, named, other = weights_of(), weights_of(importance="l1", calibration="min_max"), weights_of(importance="l2")
    assert usual.ranges == named.ranges
    assert all(np.array_equal(usual.weights[name], array) for name, array in named.weights.items())
    assert any(not np.array_equal(usual.weights[name], array) for name, array in other.weights.items())
    narrow = weights_of(calibration="percentile")
    assert all(high <= usual.ranges[name][1] for name, (_, high) in narrow.ranges.items())
    assert narrow.ranges != usual.ranges
    with pytest.raises(DesignError, match="'guess' is none of min_max, percentile"):
        weights_of(calibration="guess")


def test_gradients_are_told_once_for_all_designs(digits_home):
    """Importances that look at labelled images are decisions as the others are."""
    space = {"prune_ratio": {"high": 0.5, "step": 0.5}, "importance": {"choices": ["biased_loss", "grasp"]}}
    spec = digits_spec(space=space)
    assert [d.choices for d in check_spec(spec, local_known()).space.decisions][-1] == ("biased_loss", "grasp")
    design = Design.of({**half("fp32"), "importance/network": "grasp"})
    outcome = evaluate(spec, Sources(), design, digits_home.key, digits_home.folder)
    assert outcome.state is TrialState.SUCCEEDED
    assert outcome.values["accuracy"] > 0.4
    benches = [set_up(spec, Sources(), digits_home.key, digits_home.folder) for _ in range(2)]
    first, second = (bench.atom_scores("grasp") for bench in benches)
    assert first is second
    assert np.isfinite(first).all()
    assert (first < 0).any()


def inner_blocks_in(precision: str) -> Design:
    blocks = dict.fromkeys(layer.block for layer in base_network().compute_nodes())
    ends = "k8a32" if precision.startswith("k") else "w8a8"
    inner = {f"precision/{block}": precision for block in blocks}
    return Design.of(inner | {"precision/stem": ends, "precision/classifier": ends})


@pytest.mark.parametrize("precision", ["w4a4", "k4a32"])
def test_few_bits_are_scored_and_exported_and_said_to_be_emulated(digits_home, precision):
    """Far from guessing without any training, and the file that is handed out does exactly what was scored."""
    evaluation = {"calibration": "mse", "bias_correction": True, "score_images": SCORE_IMAGES}
    spec, design = digits_spec(evaluation=evaluation), inner_blocks_in(precision)
    outcome = evaluate(spec, Sources(), design, digits_home.key, digits_home.folder)
    assert outcome.values["accuracy"] > 0.6
    assert outcome.details["emulated"] is True
    assert f"{precision}: " in outcome.details["emulation"]
    result = export(spec, Sources(), design, digits_home.key, None, outcome.values, digits_home.folder)
    assert set(result["report"]["differences"].values()) == {0}
    assert "emulated" not in evaluate(spec, Sources(), half("w8a8"), digits_home.key, digits_home.folder).details


def test_corrected_biases_are_part_of_how_a_spec_makes_its_candidates(digits_home):
    def weights_of(**evaluation):
        bench = set_up(digits_spec(evaluation=evaluation), Sources(), digits_home.key, digits_home.folder)
        return build(bench, inner_blocks_in("w4a4"), {"stage_s": {}})[0].weights

    plain, corrected = weights_of(), weights_of(bias_correction=True)
    assert {name for name, array in plain.items() if not np.array_equal(array, corrected[name])} == {
        name for name in plain if name.endswith(".bias")
    }


def test_a_limit_on_size_is_judged_before_any_work(tmp_path):
    outcome = evaluate(limited("size_bytes", max=10_000), Sources(), half("w8a8"), NO_BASE, tmp_path)
    assert outcome.state is TrialState.INFEASIBLE
    assert outcome.reason.startswith("size_bytes ")
    assert outcome.reason.endswith(" exceeds the limit 10,000")
    assert outcome.values.keys() == SYMBOLIC_METRICS
    assert outcome.details["stage_s"] == {}
    assert not list(tmp_path.iterdir())


def test_a_limit_on_latency_is_judged_before_scoring(digits_home):
    outcome = evaluate(limited("latency_s", max=1e-9), Sources(), half("w8a8"), digits_home.key, digits_home.folder)
    assert outcome.state is TrialState.INFEASIBLE
    assert outcome.reason.startswith("latency_s ")
    assert "accuracy" not in outcome.values
    assert "score" not in outcome.details["stage_s"]


def test_a_limit_on_accuracy_keeps_the_accuracy_that_missed_it(digits_home):
    spec = digits_spec(limits=[{"metric": "accuracy", "min": 1.01}])
    outcome = evaluate(spec, Sources(), Design.of({}), digits_home.key, digits_home.folder)
    assert outcome.state is TrialState.INFEASIBLE
    assert outcome.reason.endswith("is below the limit 1.01")
    assert outcome.values["accuracy"] > 0.9


def test_weights_that_are_no_numbers_fail_the_trial(digits_home, tmp_path):
    key = spoil_base(digits_home, tmp_path)
    outcome = evaluate(digits_spec(), Sources(), Design.of({}), key, tmp_path)
    assert outcome.state is TrialState.FAILED
    assert "not finite" in outcome.reason
    assert "accuracy" not in outcome.values


def spoil_base(home: DigitsHome, folder) -> str:
    """A base with one NaN, stored like any other."""
    key = "f" * 64
    target = folder / "bases" / key
    shutil.copytree(home.folder / "bases" / home.key, target)
    path = target / "weights.safetensors"
    weights = load_weights(path)
    weights["classifier.bias"] = np.full_like(weights["classifier.bias"], np.nan)
    save_weights(weights, path, {})
    document = json.loads((target / "base.json").read_text())
    document["weights_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (target / "base.json").write_text(json.dumps(document))
    return key


def test_another_process_finds_the_same_accuracy(digits_home):
    """In this process from warm memory, in a fresh evaluator from the files alone."""
    spec, design = digits_spec(), half("w8a8", group_size=2)
    here = evaluate(spec, Sources(), design, digits_home.key, digits_home.folder)
    evaluator = Evaluator(digits_home.folder, threads=1)
    arguments = {
        "spec": spec.model_dump(mode="json"),
        "sources": {},
        "design": design.to_json(),
        "base_key": digits_home.key,
    }
    try:
        there = evaluator.run(JobName.EVALUATE, arguments, watch=lambda: None, deadline_s=60)
    finally:
        evaluator.kill()
    assert there["values"] == dict(here.values)
    assert there["details"]["images"] == here.details["images"]


# --- confirm ----------------------------------------------------------------------------------------------------


def test_a_finalist_is_scored_on_images_that_nothing_was_chosen_by(confirmed, digits_home):
    values, images = confirmed["values"], confirmed["details"]["images"]
    split = digits_home.splits.confirm
    assert (images["split"], images["digest"]) == ("confirm", split.digest)
    assert values["images"] == images["count"] == len(split)
    assert (values["accuracy_low"], values["accuracy_high"]) == wilson_interval(values["accuracy"], len(split))
    assert values["accuracy_low"] < values["accuracy"] < values["accuracy_high"]
    assert confirmed["details"]["stage_s"]["fine_tune"] > 0


def test_a_finalists_weights_are_kept_as_they_were_trained(confirmed, digits_home):
    path = open_path(digits_home.folder / ARTIFACTS, confirmed["weights_digest"])
    check_weights(apply(base_network(), half("w8a8")), load_weights(path))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == confirmed["weights_digest"]


# --- refine -----------------------------------------------------------------------------------------------------


def test_a_refined_design_is_scored_before_and_after_and_its_weights_are_handed_out(confirmed, digits_home):
    home, design = digits_home.folder, half("w8a8")
    found = refine(digits_spec(), Sources(), design, digits_home.key, None, 20.0, 0.03, home)
    assert found["details"]["fine_tuning"]["kept"]  # it had not been trained since it was pruned
    assert found["details"]["fine_tuning"]["after"] >= found["details"]["fine_tuning"]["before"]
    assert found["values"]["accuracy_low"] < found["values"]["accuracy"] < found["values"]["accuracy_high"]
    assert found["values"]["size_bytes"] == confirmed["values"]["size_bytes"]
    again = refine(digits_spec(), Sources(), design, digits_home.key, None, 20.0, 0.03, home)
    assert again["weights_digest"] == found["weights_digest"]
    result = export_half(digits_home, found["weights_digest"], found["values"])
    assert result["report"]["differences"]["accuracy"] == 0
    assert f"-refined-{found['weights_digest'][:4]}.onnx" in result["filename"]
    (page,) = [one for one in result["files"] if one["filename"].endswith(".html")]
    told = open_path(digits_home.folder / ARTIFACTS, page["digest"]).read_text()
    assert "after the search, for 20 epochs at a learning rate of 0.03" in told


def test_a_refinement_trains_through_the_rounding_as_long_as_it_trains_floats(digits_home):
    spec, told = digits_spec(evaluation={"quantisation_aware": {"epochs": 0.1}}), []

    def progress(stage: str, _done: float, message: str) -> None:
        told.append((stage, message))

    refine(spec, Sources(), half("w8a8"), digits_home.key, None, 0.5, 0.002, digits_home.folder, progress)
    recipe = replace(recipe_for(DATASETS["digits"], None), epochs=0.5)
    steps = count_steps(len(digits_home.splits.train), recipe)
    assert steps > count_steps(len(digits_home.splits.train), replace(recipe, epochs=0.1))
    assert [message.split(",")[0] for stage, message in told if stage == "quantise"][-1] == f"step {steps} of {steps}"
    assert not list((digits_home.folder / TUNINGS).glob("*"))


def test_training_that_makes_a_design_worse_is_not_kept(confirmed, digits_home):
    begun, home = confirmed["weights_digest"], digits_home.folder
    found = refine(digits_spec(), Sources(), half("w8a8"), digits_home.key, begun, 1.0, 5.0, home)
    assert not found["details"]["fine_tuning"]["kept"]
    assert found["weights_digest"] == begun
    assert found["values"]["accuracy"] == found["before"]["accuracy"] == confirmed["values"]["accuracy"]


# --- export -----------------------------------------------------------------------------------------------------


def test_an_exported_finalist_does_what_was_reported(confirmed, digits_home):
    reported = confirmed["values"]
    result = export_half(digits_home, confirmed["weights_digest"], reported)
    report = result["report"]
    assert report["reported"] == reported
    assert report["differences"].keys() == reported.keys()
    assert {name: value for name, value in report["differences"].items() if value} == reported_file_bytes(report)
    assert result["size_bytes"] == report["remeasured"]["file_bytes"]
    assert result["filename"].startswith("digits-here-")
    assert result["filename"].endswith(".onnx")


def reported_file_bytes(report) -> dict[str, float]:
    """The file that is handed out also tells where it comes from: only its length differs."""
    return {"file_bytes": report["differences"]["file_bytes"]}


def test_a_stranger_with_the_file_alone_finds_the_reported_accuracy(confirmed, digits_home):
    """Pixels and the file's own metadata, one image at a time in a plain session."""
    result = export_half(digits_home, confirmed["weights_digest"], confirmed["values"])
    stored = open_path(digits_home.folder / ARTIFACTS, result["artifact_digest"]).read_bytes()
    session = onnxruntime.InferenceSession(stored, providers=["CPUExecutionProvider"])
    told = session.get_modelmeta().custom_metadata_map
    mean, std = (np.array(json.loads(told[f"espalier.input.{name}"]))[:, None, None] for name in ("mean", "std"))
    split = digits_home.splits.confirm
    images = ((split.images / 255 - mean) / std).astype(np.float32)
    logits = np.concatenate([session.run(None, {"image": image[None]})[0] for image in images])
    assert (logits.argmax(axis=1) == split.labels).mean() == confirmed["values"]["accuracy"]


def test_a_file_tells_where_it_comes_from(confirmed, digits_home):
    result = export_half(digits_home, confirmed["weights_digest"], confirmed["values"])
    stored = open_path(digits_home.folder / ARTIFACTS, result["artifact_digest"]).read_bytes()
    told = {entry.key: entry.value for entry in onnx.ModelProto.FromString(stored).metadata_props}
    assert told["espalier.search"] == "digits here"
    assert told["espalier.base"] == digits_home.key
    assert told["espalier.network"] == design_key(base_network(), half("w8a8"))
    assert json.loads(told["espalier.design"]) == half("w8a8").to_json()
    assert json.loads(told["espalier.reported"]) == confirmed["values"]
    assert told["espalier.input.layout"] == "NCHW"


def test_a_trial_is_exported_as_it_was_evaluated(digits_home):
    outcome = evaluate(digits_spec(), Sources(), half("fp32"), digits_home.key, digits_home.folder)
    result = export(digits_spec(), Sources(), half("fp32"), digits_home.key, None, outcome.values, digits_home.folder)
    assert result["report"]["details"]["images"] == outcome.details["images"]
    assert set(result["report"]["differences"].values()) == {0}


def export_half(home: DigitsHome, weights_digest: str, reported):
    return export(digits_spec(), Sources(), half("w8a8"), home.key, weights_digest, reported, home.folder)
