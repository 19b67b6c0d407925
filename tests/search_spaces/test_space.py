"""Spaces as realised values: what the divisor, group sizes and globs make of ratios and choices."""

import math
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search_spaces.apply import DesignError, apply
from search_spaces.build_space import SpaceError, build_space
from search_spaces.capabilities import DeviceCapabilities
from search_spaces.catalog import build_network
from search_spaces.costs import symbolic_values
from search_spaces.design import Design, Kind
from search_spaces.design_keys import design_key, same_designs
from search_spaces.network import InputContract, Network, Node, Op, infer_shapes, network_digest
from search_spaces.precision import ACTIVATION_BITS, WEIGHT_BITS
from search_spaces.reach import symbolic_reach
from search_spaces.spec import NetworkSpec, SpaceSpec
from tests.random_spaces import spaces

HALF = NetworkSpec(family="mobilenet_v1", width=0.5, input=(1, 28, 28), stem_stride=1)
RATIOS = {"low": 0.0, "high": 0.7, "step": 0.1}


def device(**changes):
    values = {"precisions": ("fp32", "w8a8"), "channel_divisor": 16, "metrics": ("latency_s",), **changes}
    return DeviceCapabilities(name="cpu", description="", **values)


def space_of(spec, network=None, on=None):
    return build_space(
        network or build_network(HALF, 10, (0.5,), (0.5,)), SpaceSpec.model_validate(spec), on or device()
    )


def choices(space):
    return {decision.name: decision.choices for decision in space.decisions}


def faults_of(spec, **kwargs):
    with pytest.raises(SpaceError) as caught:
        space_of(spec, **kwargs)
    return dict(caught.value.faults)


def test_ratios_become_the_multiples_that_the_device_likes():
    space, warnings = space_of({"prune_ratio": RATIOS})
    assert choices(space)["channels/block1.pointwise"] == (32, 16)
    assert choices(space)["channels/block2.pointwise"] == (64, 48, 32, 16)
    assert choices(space)["channels/block13.pointwise"] == (512, 464, 416, 352, 304, 256, 208, 160)
    assert "channels/stem" not in choices(space)  # 16 channels have one multiple of 16
    assert warnings == []


def test_a_narrow_layer_stays_whole_with_a_warning_that_names_it():
    network = build_network(NetworkSpec(family="resnet_56", width=0.5, input=(3, 32, 32)), 10, (0.5,) * 3, (0.5,) * 3)
    space, warnings = space_of({"prune_ratio": RATIOS}, network)
    assert any("stem" in warning and "8 channels" in warning for warning in warnings)
    assert not any(name.startswith("channels/stage1") for name in choices(space))


def test_a_width_that_is_no_multiple_keeps_its_whole_and_multiples_below():
    network = build_network(NetworkSpec(family="vgg_13", width=0.375, input=(3, 32, 32)), 10, (0.5,) * 3, (0.5,) * 3)
    space, _ = space_of({"prune_ratio": RATIOS}, network)
    assert choices(space)["channels/stage1.conv1"] == (24, 16)


def test_group_sizes_force_counts_that_they_all_divide():
    space, _ = space_of({"prune_ratio": RATIOS, "group_size": {"choices": [3, 8, 1]}}, on=device(channel_divisor=1))
    assert choices(space)["group_size/block1.depthwise"] == (1, 8)  # 3 does not divide 16
    assert choices(space)["channels/stem"] == (16, 8)
    assert choices(space)["channels/block13.pointwise"][:3] == (512, 461, 410)  # no depthwise layer reads it


def test_a_group_size_that_fits_no_whole_layer_is_left_out_with_a_warning():
    _, warnings = space_of({"group_size": {"choices": [1, 2, 32]}})
    assert [warning for warning in warnings if "block1.depthwise" in warning and "32" in warning]


def test_without_a_device_every_count_is_possible():
    network = build_network(HALF, 10, (0.5,), (0.5,))
    space, _ = build_space(network, SpaceSpec.model_validate({"prune_ratio": RATIOS}), None)
    assert choices(space)["channels/stem"] == (16, 14, 13, 11, 10, 8, 6, 5)


def test_precision_is_one_decision_for_a_block_or_for_a_layer():
    blocks, _ = space_of({"precision": {"choices": ["fp32", "w8a8"]}})
    assert len(blocks.decisions) == 15
    assert choices(blocks)["precision/block3"] == ("fp32", "w8a8")
    layers, warnings = space_of({"precision": {"choices": ["w8a8", "fp32"], "scope": "layer"}})
    assert len(layers.decisions) == 28
    assert choices(layers)["precision/block3.depthwise"] == ("w8a8", "fp32")
    assert any("scope layer" in warning for warning in warnings)


def test_a_block_is_varied_when_any_of_its_layers_matches():
    spec = {"precision": {"choices": ["fp32", "w8a8"], "layers": ["block[12].*"], "exclude": ["*.depthwise"]}}
    assert list(choices(space_of(spec)[0])) == ["precision/block1", "precision/block2"]


def test_excluded_layers_keep_their_channels():
    spec = {"prune_ratio": {**RATIOS, "layers": ["block*"], "exclude": ["block1.pointwise", "block7.*"]}}
    names = list(choices(space_of(spec)[0]))
    assert "channels/block1.pointwise" not in names
    assert "channels/block6.pointwise" not in names  # block7.depthwise follows it
    assert "channels/block7.pointwise" not in names
    assert "channels/block8.pointwise" in names


def test_separate_bits_are_decisions_of_layers():
    precisions = tuple(f"w{w}a{a}" for w in (4, 8) for a in (4, 8))
    takes_bits = device(separate_bits=True, precisions=("fp32", *precisions))
    spec = {"weight_bits": {"choices": [4, 8]}, "activation_bits": {"choices": [8, 4]}}
    assert set(faults_of(spec)) == {"/space/weight_bits", "/space/activation_bits"}
    space, _ = space_of(spec, on=takes_bits)
    assert choices(space)["weight_bits/block1.depthwise"] == (8, 4)
    assert choices(space)["activation_bits/block1.pointwise"] == (8, 4)
    assert len(space.uniform) == 4
    spec["activation_bits"]["layers"] = ["stem"]
    with pytest.raises(SpaceError) as caught:
        space_of(spec, on=takes_bits)
    ((pointer, message),) = caught.value.faults  # one fault, however many pairs there are
    assert pointer == "/space/weight_bits"
    assert message.startswith("block1.depthwise could get w8a32: cpu does not execute w8a32, w4a32; it executes fp32,")
    both = {**spec, "precision": {"choices": ["fp32"]}}
    assert "not both" in faults_of(both)["/space/weight_bits"]


W2_TO_W8 = device(precisions=("fp32", *(f"w{w}a{a}" for w in (2, 4, 8) for a in (2, 4, 8))), separate_bits=True)


def test_first_and_last_layer_keep_eight_bits_unless_they_are_named():
    spec = {"precision": {"choices": ["w2a4", "fp32", "w4a8"]}}
    space, warnings = space_of(spec, on=W2_TO_W8)
    assert choices(space)["precision/stem"] == choices(space)["precision/classifier"] == ("w8a8", "fp32")
    assert choices(space)["precision/block1"] == ("w2a4", "fp32", "w4a8")
    assert warnings == [
        "stem and classifier keep at least 8 bits, being first or last; name them in `layers` to choose fewer"
    ]
    assert {(design.get("precision/stem"), design.get("precision/block1")) for design in space.uniform} == {
        ("w8a8", "w2a4"),
        (None, None),
        ("w8a8", "w4a8"),
    }
    spec["precision"]["layers"] = ["*", "stem"]
    space, _ = space_of(spec, on=W2_TO_W8)
    assert choices(space)["precision/stem"] == ("w2a4", "fp32", "w4a8")
    assert choices(space)["precision/classifier"] == ("w8a8", "fp32")


def test_a_block_with_the_first_layer_keeps_eight_bits_as_a_whole():
    network = build_network(NetworkSpec(family="vgg_13", width=0.25, input=(3, 32, 32)), 10, (0.5,) * 3, (0.5,) * 3)
    spec = {"precision": {"choices": ["w4a4", "w8a8"], "layers": ["stage1.*", "stage2.*"]}}
    found = choices(space_of(spec, network, on=W2_TO_W8)[0])
    assert found == {"precision/stage1": ("w8a8",), "precision/stage2": ("w4a4", "w8a8")}


def test_separate_bits_keep_eight_at_both_ends():
    spec = {"weight_bits": {"choices": [2, 4]}, "activation_bits": {"choices": [8, 4], "layers": ["*", "classifier"]}}
    found = choices(space_of(spec, on=W2_TO_W8)[0])
    assert (found["weight_bits/stem"], found["activation_bits/stem"]) == ((8,), (8,))
    assert (found["weight_bits/classifier"], found["activation_bits/classifier"]) == ((8,), (8, 4))
    assert found["weight_bits/block5.pointwise"] == (4, 2)


def test_eight_bits_or_more_are_left_alone_and_so_are_few_where_eight_are_not_executed():
    weights_only = {"precision": {"choices": ["w8a8", "fp32"]}}
    assert space_of(weights_only, on=W2_TO_W8)[1] == []
    only_four = device(precisions=("w4a4",))
    assert choices(space_of({"precision": {"choices": ["w4a4"]}}, on=only_four)[0])["precision/stem"] == ("w4a4",)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("w9a8", "weights take 1, 2, 3, 4, 5, 6, 7, 8, 16 or 32 bits, not 9"),
        ("w8a1", "activations take 2, 3, 4, 5, 6, 7, 8, 16 or 32 bits, not 1"),
        ("w32a8", "write w8a8, or leave activations at 32"),
        ("k2a8", "write w8a8, or leave activations at 32"),
        ("k16a32", "a codebook takes 1, 2, 3, 4, 5, 6, 7 or 8 bits, not 16"),
    ],
)
def test_bits_that_no_file_has_are_refused_without_a_device_too(choice, message):
    with pytest.raises(SpaceError, match=message) as caught:
        build_space(build_network(HALF, 10, (0.5,), (0.5,)), precision_spec("fp32", choice), None)
    assert caught.value.faults[0][0] == "/space/precision/choices/1"


def test_weights_alone_may_be_in_few_bits_where_no_device_is_named():
    space, _ = build_space(build_network(HALF, 10, (0.5,), (0.5,)), precision_spec("fp32", "w4a32", "k2a32"), None)
    assert choices(space)["precision/block3"] == ("fp32", "w4a32", "k2a32")
    assert choices(space)["precision/stem"] == ("fp32", "w8a32", "k8a32")


def precision_spec(*texts):
    return SpaceSpec.model_validate({"precision": {"choices": list(texts)}})


def test_separate_bits_outside_the_list_are_named():
    spec = {"weight_bits": {"choices": [8, 12]}, "activation_bits": {"choices": [1]}}
    faults = faults_of(spec, on=W2_TO_W8)
    assert "12 is none of the bits that there are: 1, 2, 3, 4" in faults["/space/weight_bits/choices/1"]
    assert "1 is none of the bits that there are: 2, 3, 4" in faults["/space/activation_bits/choices/0"]


def test_a_single_choice_that_differs_from_the_base_is_kept():
    space, _ = space_of({"precision": {"choices": ["w8a8"]}, "prune_ratio": RATIOS})
    assert choices(space)["precision/stem"] == ("w8a8",)
    assert not space.contains(Design.of({}))
    assert all(design["precision/block1"] == "w8a8" for design in space.uniform)


def test_the_uniform_baseline_is_every_ratio_with_every_precision_once():
    space, _ = space_of(
        {"prune_ratio": RATIOS, "precision": {"choices": ["fp32", "w8a8"]}, "group_size": {"choices": [1, 2]}}
    )
    assert len(space.uniform) == 16
    assert space.uniform[0] == Design.of({})
    assert space.uniform[-1]["channels/block13.pointwise"] == 160
    assert not any(name.startswith("group_size") for design in space.uniform for name in design)
    coarse, _ = space_of({"prune_ratio": {"low": 0, "high": 0.2, "step": 0.01, "layers": ["block2.pointwise"]}})
    assert [len(design) for design in coarse.uniform] == [0, 1]  # 64 and 48 channels, of 21 ratios


@pytest.mark.parametrize(
    ("spec", "pointer", "hint"),
    [
        ({"group_size": {"choices": [1, 2], "layers": ["*.depthwize"]}}, "/space/group_size/layers/0", "depthwise"),
        (
            {"group_size": {"choices": [1, 2], "layers": ["*", "*.pointwise"]}},
            "/space/group_size/layers/1",
            "without groups, such as block1.pointwise; depthwise layers are block1.depthwise",
        ),
        ({"prune_ratio": {**RATIOS, "layers": ["clasifier"]}}, "/space/prune_ratio/layers/0", "classifier"),
        ({"prune_ratio": {**RATIOS, "layers": ["classifier"]}}, "/space/prune_ratio/layers/0", "must all stay"),
        ({"prune_ratio": {**RATIOS, "exclude": ["stemm"]}}, "/space/prune_ratio/exclude/0", "stem"),
        ({"precision": {"choices": ["fp32", "w4a4"]}}, "/space/precision/choices/1", "fp32, w8a8"),
        ({"precision": {"choices": ["int8"]}}, "/space/precision/choices/0", "w8a8"),
        ({"precision": {"choices": ["fp32"], "layers": ["x"]}}, "/space/precision/layers/0", "matches no layer"),
    ],
)
def test_what_does_not_fit_is_a_fault_with_its_place_and_a_remedy(spec, pointer, hint):
    faults = faults_of(spec)
    assert hint in faults[pointer]


def test_all_faults_are_found_at_once():
    spec = {
        "prune_ratio": {**RATIOS, "layers": ["a", "b"]},
        "precision": {"choices": ["w1a1"], "exclude": ["c"]},
        "group_size": {"choices": [1], "layers": ["stem"]},
    }
    assert set(faults_of(spec)) == {
        "/space/prune_ratio/layers/0",
        "/space/prune_ratio/layers/1",
        "/space/precision/choices/0",
        "/space/precision/exclude/0",
        "/space/group_size/layers/0",
    }


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_every_point_of_a_space_is_a_design_that_applies(data):
    space = data.draw(spaces())
    indices = tuple(data.draw(st.integers(0, len(decision.choices) - 1)) for decision in space.decisions)
    design = space.design_at(indices)
    assert space.indices_of(design) == indices
    assert space.contains(design)
    infer_shapes(apply(space.network, design))
    assert space.size() == math.prod(len(decision.choices) for decision in space.decisions)
    for decision in space.decisions:
        assert len(set(decision.choices)) == len(decision.choices)
        if decision.kind is Kind.CHANNELS:
            assert list(decision.choices) == sorted(decision.choices, reverse=True)
    for uniform in space.uniform:
        assert space.contains(uniform)
    keys = [design_key(space.network, uniform) for uniform in space.uniform]
    assert len(set(keys)) == len(keys)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_two_points_are_the_same_design_where_they_have_one_key(data):
    """So that samplers know, before a search adds it, what was tried in other words."""
    space = data.draw(spaces())
    point = tuple(data.draw(st.integers(0, len(decision.choices) - 1)) for decision in space.decisions)
    key, same = design_key(space.network, space.design_at(point)), same_designs(space, point)
    for place, decision in enumerate(space.decisions):
        for choice in range(len(decision.choices)):
            beside = (*point[:place], choice, *point[place + 1 :])
            assert (design_key(space.network, space.design_at(beside)) == key) == (beside in same), decision.name


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_no_design_lies_outside_of_the_reach(data):
    space = data.draw(spaces())
    reach = symbolic_reach(space)
    generator = np.random.default_rng(data.draw(st.integers(0, 99)))
    for _ in range(5):
        indices = [int(generator.integers(len(decision.choices))) for decision in space.decisions]
        for name, value in symbolic_values(apply(space.network, space.design_at(indices))).items():
            assert reach[name].least <= value <= reach[name].greatest, name


def test_methods_are_decisions_of_the_whole_network():
    methods = {"importance": {"choices": ["l2", "l1", "l2"]}, "calibration": {"choices": ["percentile"]}}
    space, _ = space_of({"prune_ratio": RATIOS, **methods})
    assert choices(space)["importance/network"] == ("l2", "l1")
    assert choices(space)["calibration/network"] == ("percentile",)
    assert {uniform["importance/network"] for uniform in space.uniform} == {"l2"}
    first, second = (space.design_at([0] * (len(space.decisions) - 2) + [one, 0]) for one in (0, 1))
    assert apply(space.network, first) == apply(space.network, second) == space.network
    assert design_key(space.network, first) == design_key(space.network, second)  # nothing is pruned
    assert design_key(space.network, Design.of({})) == network_digest(space.network)


@pytest.mark.parametrize(
    ("design", "message"),
    [({"importance/block1": "l1"}, "write importance/network"), ({"importance/network": 3}, "a method has a name")],
)
def test_a_method_is_of_the_whole_network_and_has_a_name(design, message):
    with pytest.raises(DesignError, match=message):
        apply(build_network(HALF, 10, (0.5,), (0.5,)), Design.of(design))


def test_bits_of_a_codebook_are_said_with_it():
    design = Design.of({"precision/block2.pointwise": "k4a32", "weight_bits/block2.pointwise": 8})
    with pytest.raises(DesignError, match="has a codebook"):
        apply(build_network(HALF, 10, (0.5,), (0.5,)), design)


def test_a_design_that_is_no_point_is_refused_by_name():
    space, _ = space_of({"prune_ratio": RATIOS})
    with pytest.raises(ValueError, match=r"channels/block1\.pointwise: 31"):
        space.indices_of(Design.of({"channels/block1.pointwise": 31}))
    with pytest.raises(ValueError, match="no decision"):
        space.indices_of(Design.of({"precision/stem": "fp32"}))
    with pytest.raises(IndexError):
        space.design_at([-1] * len(space.decisions))
    assert not space.contains(Design.of({"channels/nowhere": 8}))


def test_counts_are_multiples_of_what_grouped_convs_need():
    nodes = (
        Node("input", Op.INPUT),
        Node("a", Op.CONV, ("input",), channels=48),
        Node("grouped", Op.CONV, ("a",), channels=24, groups=3),
        Node("flatten", Op.FLATTEN, ("grouped",)),
        Node("classifier", Op.LINEAR, ("flatten",), channels=3),
    )
    network = Network("n", InputContract((3, 2, 2), (0.5,) * 3, (0.5,) * 3), nodes, "classifier")
    space, _ = space_of({"prune_ratio": RATIOS}, network, device(channel_divisor=4))
    assert choices(space)["channels/a"] == (48, 36, 24, 12)
    assert choices(space)["channels/grouped"] == (24, 12)


def test_a_baseline_of_very_many_designs_is_refused_in_no_time():
    pairs = tuple(f"w{weight}a{activation}" for weight in WEIGHT_BITS for activation in ACTIVATION_BITS)
    bits = {"weight_bits": {"choices": WEIGHT_BITS}, "activation_bits": {"choices": ACTIVATION_BITS}}
    spec = {"prune_ratio": {"high": 0.9, "step": 0.001}, **bits}
    everything = device(separate_bits=True, precisions=("fp32", *pairs), channel_divisor=1)
    started = time.process_time()
    assert "larger step" in faults_of(spec, on=everything)["/space"]
    assert time.process_time() - started < 2.0


def test_many_globs_that_match_nothing_are_refused_in_no_time():
    globs = [f"{'*x' * 90}{number}" for number in range(64)]
    part = {"choices": [1, 2], "layers": globs, "exclude": globs}
    started = time.process_time()
    assert len(faults_of({"group_size": part, "prune_ratio": {**RATIOS, "layers": globs}})) == 192
    assert time.process_time() - started < 2.0
