"""Opaque nodes: computed alike in torch and in a written file, at any batch, and never looked into."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from search_spaces.apply import DesignError, apply, structure_of
from search_spaces.costs import size_bytes
from search_spaces.design import Design
from search_spaces.network import InputContract, Network, Node, Op, network_from_json, network_to_json
from search_spaces.precision import W8A8
from workers.calibrate import calibrate
from workers.fold import fold_batch_norms
from workers.onnx_session import check_executed, open_session
from workers.onnx_writer import write_onnx
from workers.opaque import encode_body
from workers.torch_network import build_module
from workers.weights import init_weights


def body_of_two_nodes() -> str:
    """tanh(x0) * 0.5 + x1, with a name that another body could have too."""
    graph = onnx.GraphProto(name="body")
    graph.node.add(op_type="Tanh", input=["x0"], output=["inner"])
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([0.5], np.float32), "half"))
    graph.node.add(op_type="Mul", input=["inner", "half"], output=["scaled"])
    graph.node.add(op_type="Add", input=["scaled", "x1"], output=["y"])
    for name in ("x0", "x1", "y"):
        (graph.output if name == "y" else graph.input).append(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 8, 6, 6])
        )
    return encode_body(graph)


def make_network(precision=None) -> Network:
    nodes = [
        Node("input", Op.INPUT),
        Node("before", Op.CONV, ("input",), 8, (3, 3), (1, 1), (1, 1, 1, 1), bias=True),
        Node("fixed", Op.OPAQUE, ("before", "before"), shape=(8, 6, 6), body=body_of_two_nodes(), body_bytes=4),
        Node("again", Op.OPAQUE, ("fixed", "before"), shape=(8, 6, 6), body=body_of_two_nodes(), body_bytes=4),
        Node("after", Op.CONV, ("again",), 16, bias=True),
        Node("after.relu", Op.RELU, ("after",)),
        Node("pool", Op.GLOBAL_AVERAGE_POOL, ("after.relu",)),
        Node("flatten", Op.FLATTEN, ("pool",)),
        Node("classifier", Op.LINEAR, ("flatten",), 3, bias=True),
    ]
    network = Network("partly", InputContract((2, 6, 6), (0.5,) * 2, (0.5,) * 2), tuple(nodes), "classifier")
    if precision is None:
        return network
    return network.with_nodes({layer.name: replace(layer, precision=precision) for layer in network.compute_nodes()})


IMAGES = np.random.default_rng(0).uniform(-1, 1, (5, 2, 6, 6)).astype(np.float32)


@pytest.mark.parametrize("batch", [1, 5])
def test_torch_and_the_written_file_agree_at_any_batch(batch):
    network = make_network()
    weights, images = init_weights(network, seed=0), IMAGES[:batch]
    with torch.no_grad():
        expected = build_module(network, weights).eval()(torch.from_numpy(images)).numpy()
    model = write_onnx(network, weights, batch=batch)
    onnx.checker.check_model(onnx.ModelProto.FromString(model), full_check=True)
    np.testing.assert_allclose(open_session(model).run(None, {"image": images})[0], expected, rtol=1e-4, atol=1e-5)


def test_what_it_reads_and_makes_must_stay():
    network = make_network()
    groups = {group.name: group for group in structure_of(network).coupling.groups}
    assert groups["before"].frozen == "read by fixed, which is kept as it is"
    assert groups["again"].frozen == "made by again, which is kept as it is"
    assert not groups["after"].frozen
    with pytest.raises(DesignError, match="kept as it is"):
        apply(network, Design.of({"channels/before": 4}))
    assert apply(network, Design.of({"channels/after": 4})).by_name()["after"].channels == 4


def test_it_is_kept_in_json_and_its_constants_are_counted():
    network = make_network()
    assert network_from_json(network_to_json(network)) == network
    lighter = network.with_nodes({"fixed": replace(network.by_name()["fixed"], body_bytes=0)})
    assert size_bytes(network) - size_bytes(lighter) == 4


def test_layers_around_it_are_integers_and_it_is_not():
    network, weights = fold_batch_norms(make_network(W8A8), init_weights(make_network(), seed=0))
    model = write_onnx(network, weights, calibrate(network, weights, IMAGES))
    assert set(check_executed(network, model)) == {"before", "after", "classifier"}
    floats = write_onnx(make_network(), init_weights(make_network(), seed=0))
    found, expected = (open_session(file).run(None, {"image": IMAGES[:1]})[0] for file in (model, floats))
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max() + 0.01)


def test_only_what_lies_behind_it_is_trained():
    network = make_network()
    module = build_module(network, init_weights(network, seed=0)).train()
    module(torch.from_numpy(IMAGES)).sum().backward()
    gradients = {name: parameter.grad for name, parameter in module.named_parameters()}
    assert gradients["before/weight"] is None
    assert gradients["after/weight"] is not None
