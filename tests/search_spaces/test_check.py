"""Specs that make no sense: every fault is found, at its place, with a remedy."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest

from search_spaces.apply import structure_of
from search_spaces.capabilities import DeviceCapabilities
from search_spaces.catalog import build_for
from search_spaces.check import check_spec
from search_spaces.datasets import DATASETS, Task
from search_spaces.faults import SpecError
from search_spaces.known import Known, OwnNetwork
from search_spaces.network import InputContract, Network, Node, Op
from search_spaces.parse import parse_document, parse_spec
from search_spaces.spec import Family

EXAMPLE = Path(__file__).parents[2] / "examples" / "mobilenet_v1_fashion_mnist.yaml"
CPU = DeviceCapabilities(
    name="local-cpu",
    description="",
    precisions=("fp32", "w8a8"),
    channel_divisor=16,
    metrics=("latency_s",),
    unavailable={"energy_j": "this machine has no energy counter"},
)
METER = CPU.model_copy(update={"name": "meter", "metrics": ("latency_s", "energy_j")})
DEVICES = {"local-cpu": CPU}


@pytest.fixture
def spec():
    return copy.deepcopy(parse_document(EXAMPLE.read_bytes(), yaml=True))


def checked(data, devices=DEVICES):
    return check_spec(parse_spec(data), Known(devices))


def faults_of(data, devices=DEVICES):
    with pytest.raises(SpecError) as caught:
        checked(data, devices)
    return {fault.pointer: fault.message for fault in caught.value.faults}


def test_the_example_is_accepted(spec):
    result = checked(spec)
    assert result.waiting_for == ""
    assert result.network.input.shape == (1, 28, 28)
    assert len(result.space.uniform) == 16
    assert result.space.size() > 10**15


def test_an_unannounced_device_is_waited_for(spec):
    result = checked(spec, {})
    assert "local-cpu" in result.waiting_for
    assert "none is announced" in result.waiting_for
    assert "meter" in checked(spec, {"meter": METER}).waiting_for


def test_a_search_without_a_device_waits_for_none(spec):
    spec["objectives"][1] = {"metric": "macs", "direction": "minimize"}
    assert checked(spec, {}).waiting_for == ""


def test_an_unknown_data_set_lists_those_known(spec):
    spec["dataset"]["name"] = "fashion_mnst"
    message = faults_of(spec)["/dataset/name"]
    assert "did you mean fashion_mnist" in message
    assert "digits" in message


def test_the_input_must_be_the_data_sets_shape(spec):
    spec["network"]["input"] = [3, 32, 32]
    assert "[1, 28, 28]" in faults_of(spec)["/network/input"]


def test_a_metric_that_the_device_cannot_tell_is_refused_with_its_reason(spec):
    spec["objectives"][1]["metric"] = "energy_j"
    spec["limits"].append({"metric": "energy_j", "max": 1.0, "device": "local-cpu"})
    faults = faults_of(spec)
    assert "no energy counter" in faults["/objectives/1/metric"]
    assert "no announced device can" in faults["/limits/1/metric"]
    assert "devices that can: meter" in faults_of(spec, {**DEVICES, "meter": METER})["/objectives/1/metric"]


def test_two_devices_are_one_too_many(spec):
    spec["limits"].append({"metric": "latency_s", "max": 1.0, "device": "meter"})
    assert "one device" in faults_of(spec)["/limits/1/device"]


def test_a_precision_must_be_executed(spec):
    spec["space"]["precision"]["choices"].append("w4a4")
    assert "it executes fp32, w8a8" in faults_of(spec)["/space/precision/choices/2"]


@pytest.mark.parametrize(
    "space",
    [
        {},
        {"prune_ratio": {"low": 0.0, "high": 0.0}},
        {"precision": {"choices": ["fp32"]}},
        {"precision": {"choices": ["w8a8"]}},
        {"group_size": {"choices": [1], "layers": ["*.depthwise"]}},
    ],
)
def test_a_space_without_a_choice_is_refused(spec, space):
    spec["space"] = space
    spec["limits"] = []
    assert "nothing can be varied" in faults_of(spec)["/space"]


def test_a_limit_out_of_reach_says_what_is_in_reach(spec):
    spec["limits"] = [
        {"metric": "size_bytes", "max": 20_000},
        {"metric": "macs", "min": 1e12},
        {"metric": "accuracy", "min": 90},
        {"metric": "latency_s", "max": -1, "device": "local-cpu"},
    ]
    faults = faults_of(spec)
    assert "the smallest size_bytes in this space is 97,568" in faults["/limits/0/max"]
    assert "the greatest macs in this space is 15,046,400" in faults["/limits/1/min"]
    assert "share" in faults["/limits/2/min"]
    assert "never below 0" in faults["/limits/3/max"]


def test_limits_that_can_just_be_met_are_accepted(spec):
    """Each with one that only trials can tell; the smallest design has not the most operations, so that both are no."""
    smallest, largest = {"metric": "size_bytes", "max": 97_568}, {"metric": "macs", "min": 15_046_400}
    for limit in (smallest, largest):
        spec["limits"] = [limit, {"metric": "accuracy", "min": 0.8}]
        assert checked(spec).warnings == ()
    spec["limits"] = [smallest, largest]
    assert "keeps all of them" in faults_of(spec)["/limits"]


def test_limits_that_contradict_each_other_are_refused(spec):
    spec["limits"] = [{"metric": "macs", "max": 5e6}, {"metric": "macs", "min": 6e6}]
    assert "at most 5e+06" in faults_of(spec)["/limits/1/min"]


def test_more_images_than_a_split_has_are_refused(spec):
    spec["evaluation"].update(score_images=3_001, calibration_images=2_001)
    faults = faults_of(spec)
    assert "3,000" in faults["/evaluation/score_images"]
    assert "2,000" in faults["/evaluation/calibration_images"]


def test_bits_without_a_device_that_takes_them_are_refused(spec):
    spec["objectives"][1] = {"metric": "macs", "direction": "minimize"}
    spec["space"] = {"weight_bits": {"choices": [4, 8]}}
    assert "name one" in faults_of(spec)["/space/weight_bits"]


def test_methods_must_be_known_wherever_they_are_named(spec):
    spec["space"] |= {"importance": {"choices": ["l2", "magic"]}, "calibration": {"choices": ["max"]}}
    faults = faults_of(spec)
    assert "l1, l2" in faults["/space/importance/choices/1"]
    assert "min_max" in faults["/space/calibration/choices/0"]
    assert len(faults) == 2


def test_gradients_do_not_pass_what_is_kept_as_it_is(spec):
    nodes = (
        Node("image", Op.INPUT),
        Node("stem", Op.CONV, ("image",), channels=32),
        Node("resize", Op.OPAQUE, ("stem",), shape=(32, 2, 2), body="an ONNX graph"),
        Node("deep", Op.CONV, ("resize",), channels=64),
        Node("flat", Op.FLATTEN, ("deep",)),
        Node("logits", Op.LINEAR, ("flat",), channels=10),
    )
    network = Network("mine", InputContract((1, 28, 28), (0.5,), (0.5,)), nodes, "logits")
    spec |= {"network": {"name": "mine"}, "space": {"prune_ratio": {"high": 0.5}}}
    spec["space"]["importance"] = {"choices": ["l2", "grasp", "random"]}
    spec["evaluation"]["importance"] = "biased_loss"
    own = Known(DEVICES, networks={"mine": OwnNetwork("mine", "f" * 64, network)})
    with pytest.raises(SpecError) as caught:
        check_spec(parse_spec(spec), own)
    faults = {fault.pointer: fault.message for fault in caught.value.faults}
    assert faults.keys() == {"/space/importance/choices/1", "/evaluation/importance"}
    assert "none passes resize" in faults["/evaluation/importance"]
    assert "filter_l2" in faults["/space/importance/choices/1"]


def test_a_recipe_says_what_is_unusual_about_the_base(spec):
    spec["recipe"] = {"epochs": 3, "optimizer": "adamw", "regulariser": {"name": "margin"}, "seed": 1}
    recipe = checked(spec).spec.recipe
    assert recipe.regulariser.weight == 0.01
    assert recipe.learning_rate is None
    spec["recipe"] = {"epochs": 0, "optimizer": "adam", "regulariser": {"name": "l_inf", "weight": 0}, "steps": 1}
    with pytest.raises(SpecError) as caught:
        parse_spec(spec)
    found = {fault.pointer for fault in caught.value.faults}
    assert found == {"/recipe/epochs", "/recipe/optimizer", "/recipe/regulariser/weight", "/recipe/steps"}


def test_an_imported_network_has_no_recipe(spec):
    network = checked(spec).network
    known = Known(DEVICES, networks={"mine": OwnNetwork("mine", "0" * 64, network)})
    spec["network"] = {"name": "mine"}
    assert check_spec(parse_spec(spec), known).own_network is not None
    with pytest.raises(SpecError) as caught:
        check_spec(parse_spec(spec | {"recipe": {"seed": 1}}), known)
    assert [fault.pointer for fault in caught.value.faults] == ["/recipe"]
    assert "trained already: leave the recipe out" in caught.value.faults[0].message


def test_what_is_asked_of_fine_tuning_is_little_use_without(spec):
    spec["evaluation"] |= {"distillation": {"weight": 0.3}, "activation_l1": 1e-6}
    spec["evaluation"]["finalists"] = {"finetune_epochs": 1}
    assert checked(spec).spec.evaluation.distillation.temperature == 4
    assert not [warning for warning in checked(spec).warnings if "refining" in warning]
    spec["evaluation"]["finalists"] = {"finetune_epochs": 0}
    told = [warning for warning in checked(spec).warnings if "only refining will use it" in warning]
    assert [warning.split()[0] for warning in told] == ["distillation", "activation_l1"]


def test_values_are_not_distilled(spec):
    info = replace(DATASETS["fashion_mnist"], name="ages", task=Task.REGRESSION, classes=0)
    spec["dataset"] = {"name": "ages"}
    spec["evaluation"] |= {"distillation": {}, "finetune_epochs": 1}
    with pytest.raises(SpecError) as caught:
        check_spec(parse_spec(spec), Known(DEVICES, datasets={"ages": info}))
    faults = {fault.pointer: fault.message for fault in caught.value.faults}
    assert "ages has values" in faults["/evaluation/distillation"]


def test_all_faults_come_together(spec):
    spec["objectives"][1]["metric"] = "energy_j"
    spec["space"]["group_size"]["layers"] = ["*.depthwize", "*.pointwise"]
    spec["space"]["precision"]["choices"] = ["w4a4", "int8"]
    spec["evaluation"]["score_images"] = 9_000
    assert set(faults_of(spec)) == {
        "/objectives/1/metric",
        "/space/group_size/layers/0",
        "/space/group_size/layers/1",
        "/space/precision/choices/0",
        "/space/precision/choices/1",
        "/evaluation/score_images",
    }


@pytest.mark.parametrize(
    ("choices", "ignored"),
    [
        (["fp32", "w8a8"], []),
        (["fp32", "k4a32"], ["quantisation_aware"]),
        (["fp32", "w32a16"], ["quantisation_aware", "bias_correction"]),
    ],
)
def test_what_no_rounding_of_the_space_is_for_is_said(spec, choices, ignored):
    del spec["limits"]
    spec["objectives"][1] = {"metric": "size_bytes", "direction": "minimize"}
    spec["space"]["precision"] = {"choices": choices}
    spec["evaluation"] = {"bias_correction": True, "finalists": {"quantisation_aware": {"epochs": 1}}}
    told = [warning.split()[0] for warning in checked(spec, {}).warnings]
    assert [name for name in told if name in ("quantisation_aware", "bias_correction")] == ignored


def test_warnings_stop_nothing(spec):
    spec["budget"]["trials"] = 10
    spec["sampler"] = {"name": "random", "population": 8}
    warnings = checked(spec).warnings
    assert any("uniform baseline has 16 designs" in warning for warning in warnings)
    assert any("no population" in warning for warning in warnings)
    spec["space"] = {"precision": {"choices": ["fp32", "w8a8"], "layers": ["stem"]}}
    spec["limits"] = []
    assert any("the space has 2 designs" in warning for warning in checked(spec).warnings)


@pytest.mark.parametrize(
    ("dataset", "shape"), [("digits", [1, 8, 8]), ("cifar10", [3, 32, 32]), ("cifar100", [3, 32, 32])]
)
@pytest.mark.parametrize("family", Family)
def test_every_family_is_accepted_on_every_data_set(spec, dataset, shape, family):
    spec["network"] = {"family": family, "input": shape}
    spec["dataset"]["name"] = dataset
    spec["evaluation"].update(score_images=200, calibration_images=100)
    spec["limits"] = []
    parsed = parse_spec(spec)
    if not structure_of(build_for(parsed.network, DATASETS[parsed.dataset.name])).depthwise:
        del spec["space"]["group_size"]
    result = checked(spec)
    assert result.network.by_name()["classifier"].channels == (100 if dataset == "cifar100" else 10)


def test_a_method_beside_the_decision_on_it_is_said_to_be_unused(spec):
    spec["space"]["importance"] = {"choices": ["l1", "loss"]}
    assert not any("is not used" in warning for warning in checked(spec).warnings)
    spec["evaluation"]["importance"] = "l2"
    told = "evaluation.importance is not used: space.importance makes it a decision among l1, loss"
    assert any(warning.startswith(told) for warning in checked(spec).warnings)


def test_codecs_that_nothing_is_told_of_are_warned_of(spec):
    spec["space"]["activation_codec"] = {"choices": ["zvc", "seg"]}
    assert any("look alike" in warning for warning in checked(spec).warnings)
    spec["objectives"].append({"metric": "activation_bytes", "direction": "minimize"})
    assert not any("look alike" in warning for warning in checked(spec).warnings)
