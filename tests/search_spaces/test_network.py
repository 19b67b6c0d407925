"""Networks as data: JSON both ways, digests, shapes, and what is refused; the catalog at all its sizes."""

import json

import pytest
from hypothesis import HealthCheck, given, settings

from search_spaces.apply import structure_of
from search_spaces.catalog import build_network
from search_spaces.design import (
    Design,
    Kind,
    decision_name,
    design_from_json,
    designs_from_json,
    split_decision_name,
)
from search_spaces.network import (
    InputContract,
    Interpolation,
    Network,
    Node,
    Op,
    contract_from_json,
    contract_to_json,
    infer_shapes,
    network_digest,
    network_from_json,
    network_to_json,
)
from search_spaces.precision import FP32, W8A8, parse_precision
from search_spaces.spec import Family, NetworkSpec
from tests.random_networks import networks

CONTRACT = InputContract((3, 4, 4), (0.5,) * 3, (0.5,) * 3)


def with_nodes(*nodes):
    return Network("n", CONTRACT, (Node("input", Op.INPUT), *nodes), nodes[-1].name)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks())
def test_networks_survive_json_with_their_digest(network):
    again = network_from_json(json.loads(json.dumps(network_to_json(network))))
    assert again == network
    assert network_digest(again) == network_digest(network)


def test_a_digest_is_the_same_for_ever():
    network = with_nodes(Node("a", Op.CONV, ("input",), channels=2, precision=W8A8))
    assert network_digest(network) == "73e37c6a75dd9a0b9e32547079f3e5aa76bd78c793152afec653f71eda43e0e7"


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ((Node("input", Op.RELU, ("input",)),), "used twice"),
        ((Node("a", Op.RELU, ("b",)),), "no earlier node"),
    ],
)
def test_a_graph_that_is_none_is_refused(nodes, message):
    with pytest.raises(ValueError, match=message):
        with_nodes(*nodes)


def test_an_output_that_is_no_node_is_refused():
    with pytest.raises(ValueError, match="not a node"):
        Network("n", CONTRACT, (Node("input", Op.INPUT),), "nowhere")


@pytest.mark.parametrize(
    "nodes",
    [
        (Node("x", Op.LINEAR, ("input",), channels=2),),
        (Node("x", Op.CONV, ("input",)),),
        (Node("x", Op.CONV, ("input",), channels=4, groups=2),),
        (Node("x", Op.CONV, ("input",), channels=4, kernel=(5, 5)),),
        (Node("x", Op.SHUFFLE, ("input",), groups=2),),
        (Node("a", Op.CONV, ("input",), channels=4), Node("x", Op.ADD, ("a", "input"))),
        (Node("a", Op.CONV, ("input",), channels=4), Node("x", Op.MULTIPLY, ("a", "input"))),
        (Node("a", Op.MAX_POOL, ("input",), kernel=(2, 2), stride=(2, 2)), Node("x", Op.CONCAT, ("a", "input"))),
        (Node("a", Op.FLATTEN, ("input",)), Node("x", Op.CONV, ("a",), channels=2)),
    ],
)
def test_an_operator_that_does_not_fit_is_named(nodes):
    with pytest.raises(ValueError, match="node 'x'"):
        infer_shapes(with_nodes(*nodes))


@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize("side", [8, 28, 32, 224])
@pytest.mark.parametrize("stem_stride", [None, 1, 2])
@pytest.mark.parametrize("width", [0.1, 0.25, 1.0])
def test_every_family_builds_at_every_size(family, side, stem_stride, width):
    spec = NetworkSpec(family=family, input=(3, side, side), stem_stride=stem_stride, width=width)
    network = build_network(spec, 7, (0.5,) * 3, (0.5,) * 3)
    assert infer_shapes(network)[network.output] == (7,)
    multiple = 2 if family is Family.SHUFFLENET_V2 else 8  # its halves have 58 channels at width 1
    assert all(node.channels % multiple == 0 for node in network.nodes if node.op is Op.CONV)
    assert all(node.block for node in network.compute_nodes())


def test_the_stem_stride_is_the_familys_unless_given():
    def stem(family, stride):
        spec = NetworkSpec(family=family, input=(3, 32, 32), stem_stride=stride)
        network = build_network(spec, 10, (0.5,) * 3, (0.5,) * 3)
        return next(node for node in network.nodes if node.op is Op.CONV).stride[0]

    assert {family for family in Family if stem(family, None) == 1} == {Family.RESNET_56, Family.VGG_13}
    assert {stem(family, None) for family in Family} == {1, 2}
    assert {stem(family, 2) for family in Family} == {2}
    assert {stem(family, 1) for family in Family} == {1}


def test_layers_have_the_names_that_designs_use():
    spec = NetworkSpec(family="mobilenet_v1", input=(3, 32, 32))
    names = list(structure_of(build_network(spec, 10, (0.5,) * 3, (0.5,) * 3)).layers)
    assert names[:3] == ["stem", "block1.depthwise", "block1.pointwise"]
    assert names[-2:] == ["block13.pointwise", "classifier"]


@pytest.mark.parametrize("text", ["fp32", "w8a8", "w4a32", "w32a8", "w2a4", "w31a32"])
def test_precisions_survive_text(text):
    assert str(parse_precision(text)) == text


@pytest.mark.parametrize(
    "text", ["", "int8", "w8", "w0a8", "w33a8", "w8a33", "w8a0", "W8A8", "w8a8 ", "w08a8", "w32a32"]
)
def test_other_precisions_are_refused(text):
    with pytest.raises(ValueError, match="not a precision"):
        parse_precision(text)


def test_the_two_common_precisions():
    assert (parse_precision("fp32"), parse_precision("w8a8")) == (FP32, W8A8)


def test_equal_designs_are_equal_objects_whatever_the_order():
    one, two = Design.of({"channels/a": 1, "precision/b": "fp32"}), Design.of({"precision/b": "fp32", "channels/a": 1})
    assert one == two
    assert hash(one) == hash(two)
    assert design_from_json(json.loads(json.dumps(one.to_json()))) == one
    assert dict(one) == {"channels/a": 1, "precision/b": "fp32"}
    with pytest.raises(KeyError):
        one["channels/b"]


@pytest.mark.parametrize("kind", list(Kind))
def test_decision_names_survive_splitting(kind):
    assert split_decision_name(decision_name(kind, "a.b/c")) == (kind, "a.b/c")


@pytest.mark.parametrize(
    "data", [[], "x", {"channels": 1}, {"channels/": 1}, {"depth/a": 1}, {"channels/a": True}, {"channels/a": 1.5}]
)
def test_what_is_no_design_is_refused(data):
    with pytest.raises(ValueError, match=r"decision|design|number"):
        design_from_json(data)
    whole = {"channels/a": 1, "precision/b": "fp32"}
    with pytest.raises(ValueError, match=r"decision|design|number"):  # True is 1, and was seen before as that
        designs_from_json([whole, data])


def test_many_designs_are_read_as_each_alone():
    many = [{}, {"precision/b": "fp32", "channels/a": 1}, {"channels/a": 1}, {"channels/a": 2, "precision/b": "fp32"}]
    assert designs_from_json(many * 2) == [design_from_json(one) for one in many * 2]


def test_a_contract_survives_json_and_says_only_what_is_not_usual():
    usual = InputContract((3, 4, 4), (0.5,) * 3, (0.25,) * 3)
    odd = InputContract((3, 4, 4), (0.5,) * 3, (0.25,) * 3, resize=6, interpolation=Interpolation.BICUBIC)
    assert contract_to_json(usual).keys() == {"shape", "mean", "std"}
    for contract in (usual, odd):
        assert contract_from_json(json.loads(json.dumps(contract_to_json(contract)))) == contract
