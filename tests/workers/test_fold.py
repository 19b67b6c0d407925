"""Folding changes no output, and folds exactly what may be folded."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from search_spaces.catalog import build_network
from search_spaces.network import InputContract, Network, Node, Op
from search_spaces.spec import Family, NetworkSpec
from workers.fold import batch_norm_affine, fold_batch_norms
from workers.torch_network import build_module
from workers.weights import Weights, check_weights, init_weights

CONV = Node("conv", Op.CONV, ("input",), channels=4, kernel=(3, 3), padding=(1, 1, 1, 1))
NORM = Node("norm", Op.BATCH_NORM, ("conv",))


def make_network(*nodes: Node) -> Network:
    return Network(
        "small", InputContract((2, 6, 6), (0.5,) * 2, (0.5,) * 2), (Node("input", Op.INPUT), *nodes), nodes[-1].name
    )


def trained_weights(network: Network) -> Weights:
    generator = np.random.default_rng(0)
    weights = init_weights(network, seed=0)
    for name, array in weights.items():
        if array.ndim == 1:
            weights[name] = generator.uniform(0.3, 2.0, array.shape).astype(np.float32)
    return weights


def outputs(network: Network, weights: Weights) -> np.ndarray:
    images = torch.randn(3, *network.input.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return build_module(network, weights).eval()(images).numpy()


@pytest.mark.parametrize(
    "nodes",
    [
        (CONV, NORM, Node("relu", Op.RELU, ("norm",))),
        (Node("conv", Op.CONV, ("input",), channels=4, bias=True, groups=2), NORM),
        (
            Node("flatten", Op.FLATTEN, ("input",)),
            Node("conv", Op.LINEAR, ("flatten",), channels=3, bias=True),
            NORM,
        ),
    ],
    ids=["conv", "grouped conv with bias, last", "linear"],
)
def test_a_folded_norm_is_gone_and_the_output_stays(nodes):
    network = make_network(*nodes)
    weights = trained_weights(network)
    folded, folded_weights = fold_batch_norms(network, weights)
    assert all(node.op is not Op.BATCH_NORM for node in folded.nodes)
    assert folded.by_name()["conv"].bias
    check_weights(folded, folded_weights)
    np.testing.assert_allclose(outputs(folded, folded_weights), outputs(network, weights), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "nodes",
    [
        (Node("norm", Op.BATCH_NORM, ("input",)),),
        (CONV, Node("relu", Op.RELU, ("conv",)), Node("norm", Op.BATCH_NORM, ("relu",))),
        (CONV, NORM, Node("add", Op.ADD, ("conv", "norm"))),
    ],
    ids=["on the input", "behind a relu", "beside another reader"],
)
def test_a_norm_that_cannot_be_folded_stays(nodes):
    network = make_network(*nodes)
    weights = trained_weights(network)
    folded, folded_weights = fold_batch_norms(network, weights)
    assert folded == network
    assert folded_weights.keys() == weights.keys()


def test_a_batch_norm_is_a_scale_and_a_shift():
    """Closed form: mean 3, variance 4, weight 2, bias 1 gives 2 * (x - 3) / 2 + 1 = x - 2."""
    parts = {"weight": 2.0, "bias": 1.0, "running_mean": 3.0, "running_var": 4.0}
    scale, shift = batch_norm_affine(
        "norm", {f"norm.{part}": np.full(1, value, np.float32) for part, value in parts.items()}
    )
    np.testing.assert_allclose([*scale, *shift], [1.0, -2.0], rtol=1e-5)


@pytest.mark.parametrize("family", Family)
def test_every_norm_of_a_catalog_network_folds(family):
    network = build_network(NetworkSpec(family=family, width=0.25, input=(1, 16, 16)), 10, (0.5,), (0.5,))
    weights = trained_weights(network)
    before = {name: array.copy() for name, array in weights.items()}
    folded, folded_weights = fold_batch_norms(network, weights)
    assert all(node.op is not Op.BATCH_NORM for node in folded.nodes)
    check_weights(folded, folded_weights)
    for name, array in before.items():
        np.testing.assert_array_equal(weights[name], array, err_msg="the argument was changed")
