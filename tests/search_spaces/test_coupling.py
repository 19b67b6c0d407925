"""Coupling, apply and slicing: on random graphs, and on the structures that are easy to get wrong."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search_spaces.apply import DesignError, apply, atoms_kept, structure_of
from search_spaces.catalog import build_network
from search_spaces.coupling import derive_coupling, keep_atoms, kept_positions
from search_spaces.design import Design
from search_spaces.design_keys import design_key
from search_spaces.network import InputContract, Network, Node, Op, infer_shapes
from search_spaces.spec import NetworkSpec
from tests.numpy_network import random_weights, run
from tests.random_networks import designs, networks

RANDOM_GRAPHS = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def network_of(*nodes, shape=(3, 4, 4), output=None):
    contract = InputContract(shape, (0.5,) * shape[0], (0.25,) * shape[0])
    return Network("test", contract, (Node("input", Op.INPUT), *nodes), output or nodes[-1].name)


def conv(name, source, channels, groups=1):
    return Node(name, Op.CONV, (source,), channels=channels, groups=groups)


def head(source):
    return (Node("flatten", Op.FLATTEN, (source,)), Node("classifier", Op.LINEAR, ("flatten",), channels=3, bias=True))


def groups_of(network):
    return {group.name: group for group in derive_coupling(network).groups}


def free_sizes(network):
    return {name: group.size for name, group in groups_of(network).items() if not group.frozen}


def slice_weights(network, weights, coupling, keep):
    """Weights of what is left: rows and columns of each layer, columns relative to their group's block."""
    shapes, sliced = infer_shapes(network), {}
    layers = network.by_name()
    for name, value in weights.items():
        tensor, _, part = name.rpartition(".")
        node = layers[tensor]
        rows = kept_positions(coupling, keep, tensor)
        sliced[name] = value[rows]
        if part == "weight" and node.channels is not None:
            inputs = keep[coupling.atoms[node.inputs[0]]].reshape(node.groups, -1)
            block = rows * node.groups // shapes[tensor][0]
            if inputs.shape[1] > 1:
                sliced[name] = np.stack([value[row][inputs[b]] for row, b in zip(rows, block, strict=True)])
    return sliced


@RANDOM_GRAPHS
@given(st.data())
def test_any_design_leads_to_shapes_that_fit_and_agree_with_the_atoms(data):
    network = data.draw(networks())
    design = data.draw(designs(network))
    coupling = structure_of(network).coupling
    counts = atoms_kept(network, design)
    scores = np.random.default_rng(data.draw(st.integers(0, 9))).random(len(coupling.group_of_atom))
    keep = keep_atoms(coupling, counts, scores)

    shapes = infer_shapes(apply(network, design))

    for index, group in enumerate(coupling.groups):
        assert keep[coupling.group_of_atom == index].sum() == counts.get(group.name, group.size), group
    for tensor, shape in shapes.items():
        assert len(kept_positions(coupling, keep, tensor)) == shape[0], tensor


@RANDOM_GRAPHS
@given(st.data())
def test_slicing_computes_what_masking_computes(data):
    network = data.draw(networks())
    design = Design.of({n: v for n, v in data.draw(designs(network)).items() if n.startswith("channels/")})
    seed = data.draw(st.integers(0, 9))
    coupling = structure_of(network).coupling
    generator = np.random.default_rng(seed)
    keep = keep_atoms(coupling, atoms_kept(network, design), generator.random(len(coupling.group_of_atom)))
    weights = random_weights(network, seed)
    x = generator.normal(size=(2, *network.input.shape))

    masked = run(network, weights, x, {name: keep[atoms] for name, atoms in coupling.atoms.items()})
    sliced = run(apply(network, design), slice_weights(network, weights, coupling, keep), x)

    for tensor, values in sliced.items():
        np.testing.assert_allclose(values, masked[tensor][:, kept_positions(coupling, keep, tensor)], err_msg=tensor)


def test_a_residual_stream_is_one_group_of_all_its_producers():
    network = build_network(NetworkSpec(family="resnet_56", input=(3, 32, 32)), 10, (0.5,) * 3, (0.5,) * 3)
    groups = groups_of(network)
    assert groups["stem"].producers == ("stem", *(f"stage1.block{number}.conv2" for number in range(1, 10)))
    assert groups["stage2.block1.conv2"].producers[:2] == ("stage2.block1.conv2", "stage2.block1.shortcut")
    assert len([group for group in groups.values() if not group.frozen]) == 30


def test_depthwise_layers_follow_and_are_no_group():
    network = build_network(NetworkSpec(family="mobilenet_v1", input=(3, 32, 32)), 10, (0.5,) * 3, (0.5,) * 3)
    free = [group for group in derive_coupling(network).groups if not group.frozen]
    assert [group.name for group in free] == ["stem", *(f"block{number}.pointwise" for number in range(1, 14))]
    pruned = apply(network, Design.of({"channels/stem": 24})).by_name()
    assert (pruned["block1.depthwise"].channels, pruned["block1.depthwise"].groups) == (24, 24)


def test_concatenated_convs_stay_separate_groups():
    network = network_of(
        conv("a", "input", 4),
        conv("b", "input", 6),
        Node("both", Op.CONCAT, ("a", "b")),
        conv("c", "both", 5),
        *head("c"),
    )
    assert free_sizes(network) == {"a": 4, "b": 6, "c": 5}
    pruned = apply(network, Design.of({"channels/a": 3, "channels/b": 2}))
    assert infer_shapes(pruned)["both"] == (5, 4, 4)


def test_an_addition_to_a_concatenation_splits_the_other_producer():
    network = network_of(
        conv("a", "input", 4),
        conv("b", "input", 6),
        conv("c", "input", 10),
        Node("both", Op.CONCAT, ("a", "b")),
        Node("sum", Op.ADD, ("both", "c")),
        *head("sum"),
    )
    groups = groups_of(network)
    assert groups["a"].producers == ("a", "c")
    assert groups["b"].producers == ("b", "c")
    assert apply(network, Design.of({"channels/a": 1, "channels/b": 5})).by_name()["c"].channels == 6


def test_one_conv_in_two_groups_gets_a_numbered_name():
    network = network_of(
        conv("c", "input", 8),
        conv("a", "input", 4),
        conv("b", "input", 4),
        Node("both", Op.CONCAT, ("a", "b")),
        Node("sum", Op.ADD, ("c", "both")),
        *head("sum"),
    )
    assert free_sizes(network) == {"c": 4, "c.2": 4}


def test_a_gate_is_coupled_to_what_it_gates():
    network = network_of(
        conv("a", "input", 8),
        Node("squeeze", Op.GLOBAL_AVERAGE_POOL, ("a",)),
        conv("reduce", "squeeze", 2),
        conv("expand", "reduce", 8),
        Node("gate", Op.SIGMOID, ("expand",)),
        Node("gated", Op.MULTIPLY, ("a", "gate")),
        *head("gated"),
    )
    assert groups_of(network)["a"].producers == ("a", "expand")
    assert free_sizes(network) == {"a": 8, "reduce": 2}


def test_a_grouped_conv_keeps_equally_many_channels_of_each_block():
    network = network_of(conv("a", "input", 8), conv("grouped", "a", 16, groups=4), *head("grouped"))
    groups = groups_of(network)
    assert (groups["a"].multiple_of, groups["grouped"].multiple_of) == (4, 4)
    coupling = derive_coupling(network)
    scores = np.arange(len(coupling.group_of_atom), dtype=float)
    keep = keep_atoms(coupling, {"a": 4, "grouped": 8}, scores)
    assert kept_positions(coupling, keep, "a").tolist() == [1, 3, 5, 7]
    assert kept_positions(coupling, keep, "grouped").tolist() == [2, 3, 6, 7, 10, 11, 14, 15]


def test_blocks_that_are_made_by_different_convs_are_tied_together():
    network = network_of(
        conv("a", "input", 4),
        conv("b", "input", 4),
        Node("both", Op.CONCAT, ("a", "b")),
        conv("grouped", "both", 6, groups=2),
        *head("grouped"),
    )
    assert groups_of(network)["a"].producers == ("a", "b")


def test_a_shuffle_between_grouped_convs_removes_whole_columns():
    network = network_of(
        conv("a", "input", 12, groups=3),
        Node("shuffled", Op.SHUFFLE, ("a",), groups=3),
        conv("b", "shuffled", 8, groups=2),
        *head("b"),
        shape=(6, 4, 4),
    )
    groups = groups_of(network)
    assert (groups["a"].size, groups["a"].multiple_of) == (4, 2)
    pruned = apply(network, Design.of({"channels/a": 2}))
    assert infer_shapes(pruned)["shuffled"] == (6, 4, 4)


def test_flattened_maps_shrink_by_whole_channels():
    network = network_of(conv("a", "input", 5), *head("a"))
    assert infer_shapes(apply(network, Design.of({"channels/a": 2})))["flatten"] == (2 * 16,)


def test_input_and_output_are_frozen():
    network = network_of(conv("a", "input", 3), Node("sum", Op.ADD, ("a", "input")), *head("sum"))
    assert {name: bool(group.frozen) for name, group in groups_of(network).items()} == {
        "input": True,
        "classifier": True,
    }


@pytest.mark.parametrize(
    ("values", "decision", "message"),
    [
        ({"channels/nowhere": 8}, "channels/nowhere", "no channel group"),
        ({"channels/stem": 0}, "channels/stem", "from 1 to 32"),
        ({"channels/stem": 33}, "channels/stem", "from 1 to 32"),
        ({"channels/stem": "8"}, "channels/stem", "from 1 to 32"),
        ({"channels/classifier": 9}, "channels/classifier", "the network's output"),
        ({"group_size/block1.pointwise": 2}, "group_size/block1.pointwise", "no depthwise or grouped layer"),
        ({"group_size/block1.depthwise": 3}, "group_size/block1.depthwise", "groups of 3"),
        ({"group_size/block1.depthwise": 0}, "group_size/block1.depthwise", "at least 1"),
        ({"precision/block99": "w8a8"}, "precision/block99", "no block or layer"),
        ({"precision/block1": "int8"}, "precision/block1", "not a precision"),
        ({"weight_bits/stem": 0}, "weight_bits/stem", "one of 1, 2, 3, 4, 5, 6, 7, 8, 16, 32, not 0"),
        ({"activation_bits/stem": 1}, "activation_bits/stem", "one of 2, 3, 4, 5, 6, 7, 8, 16, 32, not 1"),
        ({"kernel/stem": 5}, "kernel/stem", "not a decision"),
    ],
)
def test_a_design_that_does_not_fit_is_refused_by_name(values, decision, message):
    network = build_network(NetworkSpec(family="mobilenet_v1", input=(3, 32, 32)), 10, (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(DesignError, match=message) as caught:
        apply(network, Design.of(values))
    assert caught.value.decision == decision


def test_a_grouped_conv_refuses_unbalanced_counts():
    network = network_of(conv("a", "input", 8, groups=1), conv("grouped", "a", 8, groups=4), *head("grouped"))
    with pytest.raises(DesignError, match="multiple of 4"):
        apply(network, Design.of({"channels/a": 6}))


def test_precision_reaches_every_layer_of_a_block_and_bits_one_layer():
    network = build_network(NetworkSpec(family="mobilenet_v1", input=(3, 32, 32)), 10, (0.5,) * 3, (0.5,) * 3)
    design = Design.of({"precision/block1": "w8a8", "precision/stem": "w8a8", "weight_bits/block2.pointwise": 4})
    layers = apply(network, design).by_name()
    found = {name: str(layers[name].precision) for name in ("stem", "block1.depthwise", "block1.pointwise")}
    assert set(found.values()) == {"w8a8"}
    assert str(layers["block2.pointwise"].precision) == "w4a32"
    assert layers["block2.depthwise"].precision.is_float


def test_ways_of_saying_one_network_have_one_key():
    network = build_network(NetworkSpec(family="mobilenet_v1", input=(3, 32, 32)), 10, (0.5,) * 3, (0.5,) * 3)
    whole = Design.of({"channels/stem": 32, "precision/stem": "fp32", "group_size/block1.depthwise": 1})
    assert design_key(network, whole) == design_key(network, Design.of({}))
    assert design_key(network, Design.of({"channels/stem": 16})) != design_key(network, whole)
