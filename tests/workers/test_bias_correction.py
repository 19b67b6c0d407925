"""Rounded weights shift the mean of an output; a corrected bias takes the shift back exactly."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import torch
from hypothesis import given, settings

from search_spaces.network import InputContract, Network, Node, Op
from search_spaces.precision import Precision
from tests.random_networks import networks
from workers.bias_correction import correct_biases, input_means
from workers.fold import fold_batch_norms
from workers.testing import random_weights
from workers.torch_network import OPERATORS, build_module
from workers.weight_grids import quantise_weights
from workers.weights import Weights

FEW = settings(max_examples=25, deadline=None)


def folded_in(network: Network, precision: Precision) -> tuple[Network, Weights, np.ndarray]:
    layers = {layer.name: replace(layer, precision=precision) for layer in network.compute_nodes()}
    folded, weights = fold_batch_norms(network.with_nodes(layers), random_weights(network))
    images = np.random.default_rng(2).standard_normal((19, *network.input.shape)).astype(np.float32)
    return folded, weights, images


@FEW
@given(networks(max_steps=4), st.sampled_from([1, 2, 4]))
def test_on_the_same_inputs_a_corrected_layer_has_the_mean_of_the_exact_one(network: Network, bits: int) -> None:
    folded, weights, images = folded_in(network, Precision(bits, 32))
    rounded = quantise_weights(folded, weights)
    corrected = correct_biases(folded, weights, rounded, images)
    layers = folded.compute_nodes()
    with torch.no_grad():
        inputs = (
            build_module(folded, weights)
            .eval()
            .observe(torch.from_numpy(images), [layer.inputs[0] for layer in layers])
        )
    for layer in layers:
        if layer.bias:
            fed = inputs[layer.inputs[0]].double()
            exact, found = (channel_means(layer, of, fed) for of in (weights, corrected))
            np.testing.assert_allclose(found, exact, atol=1e-4 * max(1.0, float(fed.abs().max())), err_msg=layer.name)
        assert np.array_equal(corrected[f"{layer.name}.weight"], rounded[f"{layer.name}.weight"])


class _Doubles:
    training = False

    def __init__(self, weights: Weights) -> None:
        self.weights = weights

    def weight(self, name: str) -> torch.Tensor | None:
        return torch.from_numpy(self.weights[name]).double() if name in self.weights else None


def channel_means(layer: Node, weights: Weights, inputs: torch.Tensor) -> np.ndarray:
    outputs = OPERATORS[layer.op](_Doubles(weights), layer, [inputs])
    return outputs.transpose(0, 1).flatten(1).mean(dim=1).numpy()


@FEW
@given(networks(max_steps=3))
def test_means_are_those_of_all_images_whatever_the_batches(network: Network) -> None:
    folded, weights, images = folded_in(network, Precision(4, 4))
    tensors = [layer.inputs[0] for layer in folded.compute_nodes()]
    with torch.no_grad():
        expected = build_module(folded, weights).eval().observe(torch.from_numpy(images), tensors)
    found = input_means(folded, weights, tensors, images)
    assert set(tensors) <= found.keys()
    for name in tensors:
        np.testing.assert_allclose(found[name], expected[name].mean(dim=0).numpy(), rtol=1e-3, atol=1e-3)


def test_float_layers_and_layers_without_a_bias_stay_as_they_are() -> None:
    network = two_layers()
    folded, weights, images = folded_in(network, Precision(2, 8))
    folded = folded.with_nodes({"second": replace(folded.by_name()["second"], precision=Precision(32, 32))})
    rounded = quantise_weights(folded, weights)
    corrected = correct_biases(folded, weights, rounded, images)
    assert all(np.array_equal(corrected[name], rounded[name]) for name in rounded)


def two_layers() -> Network:
    nodes = (
        Node("image", Op.INPUT),
        Node("first", Op.CONV, ("image",), 4, (3, 3)),
        Node("flat", Op.FLATTEN, ("first",)),
        Node("second", Op.LINEAR, ("flat",), 3, bias=True),
    )
    return Network("two", InputContract((2, 5, 5), (0.0,) * 2, (1.0,) * 2), nodes, "second")
