"""Spaces of groups: one size or one number for the whole network, and sizes layer by layer; reference counts."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from search_spaces.apply import DesignError, apply
from search_spaces.build_space import SpaceError, build_space
from search_spaces.catalog import build_network
from search_spaces.cost_models.balance import grouped_convs
from search_spaces.costs import macs, parameters, symbolic_values
from search_spaces.design import Design
from search_spaces.network import InputContract, Network, Node, Op, infer_shapes
from search_spaces.reach import symbolic_reach
from search_spaces.spec import NetworkSpec, SpaceSpec

RATIOS = {"low": 0.0, "high": 0.7, "step": 0.1}
ONE_SIZE = {"scope": "network", "choices": [1, 2, 4, 8, 16, 32]}


def catalog(family, side=224, width=1.0):
    return build_network(NetworkSpec(family=family, width=width, input=(3, side, side)), 1000, (0.5,) * 3, (0.5,) * 3)


@pytest.fixture(scope="module")
def mobilenet():
    return catalog("mobilenet_v1")


@pytest.fixture(scope="module")
def resnext():
    return catalog("resnext_50")


def space_of(network, **spec):
    return build_space(network, SpaceSpec.model_validate(spec), None)


def counts_by_choice(network, **spec):
    """Choice of the only decision to (M MACs, M parameters)."""
    space, warnings = space_of(network, **spec)
    (decision,) = space.decisions
    networks = [apply(network, space.design_at([index])) for index in range(len(decision.choices))]
    found = {c: (macs(n) / 1e6, parameters(n) / 1e6) for c, n in zip(decision.choices, networks, strict=True)}
    return decision, found, warnings


# Counts of convs and the linear layer at 224 x 224, derived apart from this code.


def test_constant_group_size_of_mobilenet_v1_has_the_reference_counts(mobilenet):
    decision, found, warnings = counts_by_choice(mobilenet, group_size=ONE_SIZE)
    assert decision.name == "group_size/network"
    assert warnings == []
    expected = {
        1: (568.7, 4.209),
        2: (586.1, 4.254),
        4: (620.9, 4.343),
        8: (690.4, 4.522),
        16: (829.5, 4.879),
        32: (1107.7, 5.593),
    }
    assert found == {size: pytest.approx(counts, rel=2e-3) for size, counts in expected.items()}


def test_constant_number_of_groups_of_mobilenet_v1_has_the_reference_counts(mobilenet):
    decision, found, _ = counts_by_choice(mobilenet, groups={"choices": [8, 16, 32, 64, 128]})
    assert (decision.name, decision.choices) == ("groups/network", (128, 64, 32, 16, 8))
    expected = {128: (588.4, 4.361), 64: (620.0, 4.557), 32: (685.0, 4.949), 16: (818.7, 5.734), 8: (1086.0, 7.304)}
    assert found == {count: pytest.approx(counts, rel=2e-3) for count, counts in expected.items()}


def test_the_pairs_of_mobilenet_v1_have_equal_macs_and_constant_size_has_fewer_parameters(mobilenet):
    _, sizes, _ = counts_by_choice(mobilenet, group_size=ONE_SIZE)
    _, numbers, _ = counts_by_choice(mobilenet, groups={"choices": [8, 16, 32, 64, 128]})
    for size, number in [(2, 128), (4, 64), (8, 32), (16, 16), (32, 8)]:
        assert sizes[size][0] == pytest.approx(numbers[number][0], rel=0.02)
        assert sizes[size][1] < numbers[number][1]
        constant, growing = (
            [conv.arithmetic_intensity for conv in grouped_convs(apply(mobilenet, Design.of(design))).values()]
            for design in ({"group_size/network": size}, {"groups/network": number})
        )
        assert max(constant) / min(constant) < max(growing) / min(growing)


def test_resnext_50_has_the_reference_counts_both_ways(resnext):
    decision, sizes, warnings = counts_by_choice(resnext, group_size={"scope": "network", "choices": [4, 8, 16, 32]})
    assert decision.choices == (4, 8, 16, 32)
    assert warnings == []
    expected = {4: (4099, 23.82), 8: (4198, 24.09), 16: (4397, 24.63), 32: (4794, 25.72)}
    assert sizes == {size: pytest.approx(counts, rel=2e-3) for size, counts in expected.items()}
    _, numbers, _ = counts_by_choice(resnext, groups={"choices": [64, 32, 16, 8]})
    expected = {64: (4115, 24.25), 32: (4230, 24.96), 16: (4462, 26.37), 8: (4924, 29.20)}
    assert numbers == {count: pytest.approx(counts, rel=2e-3) for count, counts in expected.items()}
    assert (macs(resnext) / 1e6, parameters(resnext) / 1e6) == pytest.approx(numbers[32], rel=1e-9)


def test_a_size_that_does_not_divide_a_layer_becomes_the_nearest_there_and_says_so():
    network = catalog("mobilenet_v1", 32, width=0.25)  # 8 channels in its first depthwise layer
    space, warnings = space_of(network, group_size={"scope": "network", "choices": [1, 16]})
    assert space.decisions[0].choices == (1, 16)
    (warning,) = warnings
    assert "group size 16 does not divide the channels of 1 layers" in warning
    assert "block1.depthwise gets 8" in warning
    layers = apply(network, space.design_at([1])).by_name()
    assert [layers[f"block{number}.depthwise"].groups for number in (1, 2, 3)] == [1, 1, 2]  # of 8, 16, 32 channels


def test_choices_that_lead_to_the_same_are_one():
    network = catalog("mobilenet_v1", 32, width=0.25)
    space, warnings = space_of(network, group_size={"scope": "network", "choices": [256, 512, 1024]})
    assert space.decisions[0].choices == (256,)
    assert sum("leads to the same as 256" in warning for warning in warnings) == 2


@pytest.mark.parametrize(
    "spec", [{"group_size": {"scope": "network", "choices": [2, 4, 6]}}, {"groups": {"choices": [64, 12, 5]}}], ids=str
)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_whatever_pruning_leaves_the_design_fits_and_is_within_reach(spec, data):
    family = data.draw(st.sampled_from(["mobilenet_v1", "resnext_50", "shufflenet_v2"]))
    network = catalog(family, 32, width=0.25)
    space, _ = space_of(network, prune_ratio=RATIOS, **spec)
    indices = [data.draw(st.integers(0, len(decision.choices) - 1)) for decision in space.decisions]
    design = space.design_at(indices)
    assert space.indices_of(design) == tuple(indices)
    applied = apply(network, design)
    infer_shapes(applied)
    values, reach = symbolic_values(applied), symbolic_reach(space)
    assert all(reach[name].least <= value <= reach[name].greatest for name, value in values.items())


def test_one_size_is_kept_by_all_depthwise_layers_whatever_is_pruned(mobilenet):
    space, _ = space_of(mobilenet, prune_ratio=RATIOS, group_size={"scope": "network", "choices": [4, 8]})
    indices = [len(decision.choices) - 1 for decision in space.decisions]
    sizes = {conv.group_size for conv in grouped_convs(apply(mobilenet, space.design_at(indices))).values()}
    assert sizes == {8}


def test_the_uniform_baseline_has_the_bases_own_groups_or_the_most_that_are_a_choice(mobilenet, resnext):
    baseline = space_of(mobilenet, prune_ratio=RATIOS, group_size=ONE_SIZE)[0].uniform
    assert not any("group_size/network" in design for design in baseline)
    assert [dict(d) for d in space_of(resnext, groups={"choices": [8, 64]})[0].uniform] == [{"groups/network": 64}]
    layers = space_of(resnext, group_size={"choices": [2, 4, 8]})[0]
    (only,) = layers.uniform
    assert {conv.group_size for conv in grouped_convs(apply(resnext, only)).values()} == {4, 8, 2}
    assert "group_size/stage1.block1.conv2" not in only  # 4 is its own


def test_grouped_layers_are_varied_one_by_one_where_they_are_not_pruned(resnext):
    space, warnings = space_of(resnext, group_size={"choices": [4, 8], "layers": ["*.conv2"]})
    assert len(space.decisions) == 16
    assert warnings == []
    pruned, warnings = space_of(resnext, group_size={"choices": [4, 8]}, prune_ratio=RATIOS)
    assert not any(decision.name.startswith("group_size") for decision in pruned.decisions)
    assert "stage1.block1.conv2 keeps its number of groups" in warnings[-1]
    mixed, _ = space_of(
        resnext, group_size={"choices": [4, 8]}, prune_ratio={**RATIOS, "exclude": ["stage1.*conv1", "stage1.*conv2"]}
    )
    names = [decision.name for decision in mixed.decisions if decision.name.startswith("group_size")]
    assert names == [f"group_size/stage1.block{number}.conv2" for number in (1, 2, 3)]


def test_a_size_that_is_named_for_a_layer_is_exact_and_one_of_the_network_is_the_nearest(resnext):
    layer = "stage1.block1.conv2"
    own = apply(resnext, Design.of({f"group_size/{layer}": 16, "group_size/network": 8}))
    sizes = {name: conv.group_size for name, conv in grouped_convs(own).items()}
    assert sizes.pop(layer) == 16
    assert set(sizes.values()) == {8}


def test_outputs_have_to_divide_into_as_many_groups():
    nodes = (
        Node("input", Op.INPUT),
        Node("conv", Op.CONV, ("input",), channels=18, groups=6),
        Node("head", Op.CONV, ("conv",), channels=2),
    )
    network = Network("narrow", InputContract((12, 4, 4), (0.5,) * 12, (0.5,) * 12), nodes, "head")
    assert apply(network, Design.of({"group_size/conv": 4})).by_name()["conv"].groups == 3
    with pytest.raises(DesignError, match="12 channels do not divide into groups of 3, and 18 that are made"):
        apply(network, Design.of({"group_size/conv": 3}))
    assert apply(network, Design.of({"group_size/network": 3})).by_name()["conv"].groups == 3


@pytest.mark.parametrize(
    ("values", "decision", "hint"),
    [
        ({"group_size/network": 4, "groups/network": 8}, "groups/network", "not both"),
        ({"groups/block1.depthwise": 4}, "groups/block1.depthwise", "groups/network"),
        ({"groups/network": 0}, "groups/network", "at least 1"),
        ({"groups/network": "4"}, "groups/network", "whole number"),
        ({"group_size/network": -(10**30)}, "group_size/network", "at least 1"),
        ({"group_size/block1.depthwise": 5, "groups/network": 8}, "group_size/block1.depthwise", "groups of 5"),
        ({"channels/stem": 12, "group_size/block1.depthwise": 8}, "group_size/block1.depthwise", "12 channels"),
    ],
)
def test_a_design_that_does_not_fit_is_refused_by_name(mobilenet, values, decision, hint):
    with pytest.raises(DesignError, match=hint) as caught:
        apply(mobilenet, Design.of(values))
    assert caught.value.decision == decision


@pytest.mark.parametrize("name", ["group_size/network", "groups/network"])
def test_a_network_without_groups_has_none_to_choose(name):
    vgg = catalog("vgg_13", 32)
    with pytest.raises(DesignError, match="no depthwise or grouped layer"):
        apply(vgg, Design.of({name: 4}))
    spec = {"group_size": {"scope": "network", "choices": [2]}} if "size" in name else {"groups": {"choices": [2]}}
    with pytest.raises(SpaceError) as caught:
        space_of(vgg, **spec)
    assert dict(caught.value.faults) == {f"/space/{next(iter(spec))}": "this network has no depthwise or grouped layer"}


def test_size_and_number_are_not_both_varied(mobilenet):
    with pytest.raises(SpaceError, match="not both"):
        space_of(mobilenet, group_size=ONE_SIZE, groups={"choices": [8]})


def test_a_layer_that_is_called_network_keeps_its_name():
    nodes = (
        Node("input", Op.INPUT),
        Node("network", Op.CONV, ("input",), channels=8, groups=8),
        Node("other", Op.CONV, ("network",), channels=8, groups=8),
    )
    network = Network("odd", InputContract((8, 4, 4), (0.5,) * 8, (0.5,) * 8), nodes, "other")
    found = apply(network, Design.of({"group_size/network": 2})).by_name()
    assert (found["network"].groups, found["other"].groups) == (4, 8)
    with pytest.raises(SpaceError, match="choose scope layer"):
        space_of(network, group_size=ONE_SIZE)


@pytest.mark.parametrize(
    "part",
    [
        {"group_size": {"scope": "network", "choices": [2], "layers": ["block1.*"]}},
        {"group_size": {"scope": "network", "choices": [2], "exclude": ["block1.*"]}},
        {"group_size": {"scope": "block", "choices": [2]}},
        {"groups": {"choices": []}},
        {"groups": {"choices": [0]}},
        {"groups": {"choices": [2], "scope": "layer"}},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(part):
    with pytest.raises(ValidationError):
        SpaceSpec.model_validate(part)
