"""Ranges are those of the tensors that a candidate really has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from search_spaces.catalog import build_network
from search_spaces.network import InputContract, Network, Op
from search_spaces.precision import FP32, W8A8, Precision
from search_spaces.quantisation import plan_quantisation
from search_spaces.spec import Calibration, Family, NetworkSpec
from workers.calibrate import calibrate
from workers.fold import fold_batch_norms
from workers.onnx_quantize import activation_grid, calibrated_tensors, image_range, quantise_weight
from workers.torch_network import build_module
from workers.weights import Weights, init_weights


def quantised_network(family: Family) -> tuple[Network, Weights]:
    network = build_network(NetworkSpec(family=family, width=0.25, input=(1, 28, 28)), 10, (0.3,), (0.35,))
    folded, weights = fold_batch_norms(network, init_weights(network, seed=0))
    return folded.with_nodes({layer.name: replace(layer, precision=W8A8) for layer in folded.compute_nodes()}), weights


def observed(network: Network, weights: Weights, images: np.ndarray) -> dict[str, np.ndarray]:
    with torch.no_grad():
        tensors = build_module(network, weights).observe(torch.from_numpy(images), calibrated_tensors(network))
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 1, 28, 28), dtype=np.float32)


@pytest.mark.parametrize("family", Family)
def test_min_max_is_the_smallest_and_largest_value_seen(family):
    network, weights = quantised_network(family)
    batch = images(37)  # not a multiple of any batch size
    ranges = calibrate(network, weights, batch)
    expected = observed(network, weights, batch)
    assert ranges.keys() == expected.keys() == set(calibrated_tensors(network))
    for name, values in expected.items():
        np.testing.assert_allclose(ranges[name], [values.min(), values.max()], rtol=1e-4, atol=1e-5, err_msg=name)


def test_percentiles_ignore_rare_values():
    network, weights = quantised_network(Family.MOBILENET_V1)
    batch = images(64)
    expected = observed(network, weights, batch)
    ranges = calibrate(network, weights, batch, Calibration.PERCENTILE)
    for name, values in expected.items():
        low, high = ranges[name]
        assert values.min() <= low <= high <= values.max()
        # 32,768 sampled values of 64 images, which resemble each other: 0.1% lie above, within a factor of two.
        assert 0.0005 <= (values > high).mean() <= 0.002, name


@pytest.mark.parametrize("method", [Calibration.MSE, Calibration.KL])
def test_ranges_of_least_loss_are_told_from_a_sample_for_the_bits_that_a_tensor_has(method):
    network, weights = quantised_network(Family.MOBILENET_V1)
    batch = images(64)
    layers = {layer.name: replace(layer, precision=Precision(4, 3)) for layer in network.compute_nodes()}
    coarse = calibrate(network.with_nodes(layers), weights, batch, method)
    fine, whole = calibrate(network, weights, batch, method), calibrate(network, weights, batch)
    assert coarse.keys() == fine.keys() == whole.keys()
    for name, (low, high) in whole.items():
        assert low * 1.0001 <= fine[name][0] <= 0.0 < fine[name][1] <= high * 1.0001
    narrower = [coarse[name][1] < fine[name][1] for name in whole]
    assert sum(narrower) > len(narrower) / 2, "few levels are worth more near zero"


def test_a_network_without_integers_needs_no_ranges():
    network, weights = quantised_network(Family.VGG_13)
    floats = network.with_nodes({layer.name: replace(layer, precision=FP32) for layer in network.compute_nodes()})
    assert calibrate(floats, weights, images(2)) == {}


def test_the_precision_that_is_asked_for_does_not_disturb_the_ranges():
    """Ranges are read in float, so that they do not depend on other layers' rounding."""
    network, weights = quantised_network(Family.MOBILENET_V1)
    first = next(iter(network.compute_nodes()))
    partly = network.with_nodes({first.name: replace(first, precision=FP32)})
    whole, part = calibrate(network, weights, images(8)), calibrate(partly, weights, images(8))
    assert part == {name: whole[name] for name in part}


def test_pixels_have_a_range_of_their_own():
    low, high = image_range(InputContract((2, 4, 4), (0.5, 0.25), (0.5, 0.25)))
    assert (low, high) == (-1.0, 3.0)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("span", [(0.0, 6.0), (-1.5, 3.0), (2.0, 5.0), (-4.0, -1.0), (0.0, 0.0)])
def test_a_grid_holds_zero_exactly_and_reaches_both_ends(span, bits):
    grid = activation_grid(span, bits)
    assert 0 <= grid.zero_point <= grid.top == 2**bits - 1
    lowest, highest = ((integer - grid.zero_point) * grid.scale for integer in (0, grid.top))
    assert lowest - grid.scale / 2 <= min(span[0], 0.0)
    assert highest + grid.scale / 2 >= max(span[1], 0.0)
    if span[0] >= 0:
        assert grid.zero_point == 0, "behind a relu, so that it is swallowed"


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_weights_are_rounded_to_the_nearest_of_their_channels_grid(bits):
    weight = np.random.default_rng(0).standard_normal((5, 3, 2, 2)).astype(np.float32) * np.arange(5).reshape(
        5, 1, 1, 1
    )
    integers, scale = quantise_weight(weight.astype(np.float32), bits)
    top = 2 ** (bits - 1) - 1
    assert integers.dtype == np.int8
    assert np.abs(integers).max() == top
    error = np.abs(integers * scale.reshape(-1, 1, 1, 1) - weight)
    assert (error <= scale.reshape(-1, 1, 1, 1) * 0.5001).all()


def test_a_residual_add_of_integers_is_one_itself():
    network, _ = quantised_network(Family.RESNET_56)
    plan = plan_quantisation(network)
    adds = {node.name for node in network.nodes if node.op is Op.ADD}
    assert adds <= plan.integer_nodes
    first = min(adds)
    assert f"{first.removesuffix('.add')}.relu" in plan.integer_tensors
