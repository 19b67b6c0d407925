"""The torch interpreter of a quantised network against the file itself, run by ONNX Runtime."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given

from search_spaces.network import Network, Node, Op
from search_spaces.precision import W8A8, Precision, parse_precision
from search_spaces.quantisation import plan_quantisation
from search_spaces.spec import Estimator, Family
from tests.workers.test_parity import (
    CONV,
    HEAD,
    QUICK,
    blocks_of,
    catalog_network,
    make_network,
    random_images,
    random_networks,
    run_onnx,
    with_precision,
)
from workers.calibrate import calibrate
from workers.fold import fold_batch_norms
from workers.onnx_quantize import TensorRange, activation_grid, quantise_weight
from workers.onnx_session import check_executed
from workers.onnx_writer import write_onnx
from workers.quantisation_aware.module import QuantisedModule, build_quantised_module
from workers.testing import random_weights
from workers.weight_grids import is_on_grid
from workers.weights import Weights, WeightsError

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGES = 16
PRECISIONS = [W8A8, Precision(4, 4), Precision(2, 8), Precision(1, 5)]
Prepared = tuple[Network, Weights, dict[str, TensorRange], np.ndarray]


def prepare(network: Network, seed: int = 0) -> Prepared:
    """Folded, with ranges calibrated on the images that follow."""
    folded, weights = fold_batch_norms(network, random_weights(network, seed))
    images = random_images(folded, IMAGES)
    return folded, weights, calibrate(folded, weights, images), images


def run_module(module: QuantisedModule, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return module(torch.from_numpy(images)).numpy()


def assert_same(actual: np.ndarray, expected: np.ndarray) -> None:
    """Both add in other orders, so a value at a tie may fall either way, and what follows with it: most agree.

    A step is one of 255 of the outputs' range. Where the interpreter forgets a rounding, nearly all differ by more.
    """
    steps = np.abs(actual - expected) * 255 / max(float(np.ptp(expected)), 1e-6)
    assert (steps <= 1).mean() >= 0.6, f"{np.sort(steps, axis=None)[::-8][:20]}"
    assert steps.mean() <= 3


def grow(module: QuantisedModule, seed: int = 0) -> None:
    """Move weights and steps somewhere else, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1 + 0.5 * (torch.rand(parameter.shape, generator=generator) - 0.5))
    module.settle()


FAMILIES = [
    Family.MOBILENET_V1,
    Family.MOBILENET_V2,
    Family.MOBILENET_V3_SMALL,
    Family.RESNET_18,
    Family.SHUFFLENET_V2,
    Family.VGG_13,
]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
def test_torch_computes_what_the_file_computes(family, precision):
    network, weights, ranges, images = prepare(with_precision(catalog_network(family), precision))
    module = build_quantised_module(network, weights, ranges)
    assert_same(run_module(module, images), run_onnx(write_onnx(network, weights, ranges, batch=IMAGES), images))


@pytest.mark.parametrize("family", FAMILIES)
def test_precisions_may_differ_by_block(family):
    network = catalog_network(family)
    for number, block in enumerate(blocks_of(network)):
        precision = [None, *PRECISIONS][number % 5]
        network = with_precision(network, precision, block) if precision else network
    folded, weights, ranges, images = prepare(network)
    module = build_quantised_module(folded, weights, ranges)
    assert_same(run_module(module, images), run_onnx(write_onnx(folded, weights, ranges, batch=IMAGES), images))


@pytest.mark.parametrize("text", ["w4a32", "k3a32", "w1a32", "w8a16"])
def test_weights_in_few_bits_of_layers_that_compute_in_floats_are_as_in_the_file(text):
    network = with_precision(catalog_network(Family.MOBILENET_V1), W8A8)
    for block in blocks_of(network)[::2]:
        network = with_precision(network, parse_precision(text), block)
    folded, weights, ranges, images = prepare(network)
    module = build_quantised_module(folded, weights, ranges)
    assert_same(run_module(module, images), run_onnx(write_onnx(folded, weights, ranges, batch=IMAGES), images))
    grow(module)
    module(torch.from_numpy(images)).sum().backward()
    held = [layer.name for layer in folded.compute_nodes() if str(layer.precision) == text]
    assert all(module.named_weights()[f"{name}.weight"].grad.abs().sum() > 0 for name in held)
    learned, learned_ranges = module.deployed()
    assert all(is_on_grid(learned[f"{layer.name}.weight"], layer.precision) for layer in folded.compute_nodes())
    file = write_onnx(folded, learned, learned_ranges, batch=IMAGES)
    assert_same(run_module(module, images), run_onnx(file, images))


@QUICK
@given(random_networks())
def test_random_graphs_agree(network):
    folded, weights, ranges, images = prepare(with_precision(network, Precision(4, 8)))
    module = build_quantised_module(folded, weights, ranges)
    assert_same(run_module(module, images), run_onnx(write_onnx(folded, weights, ranges, batch=IMAGES), images))


@pytest.mark.parametrize("estimator", Estimator)
@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
def test_what_was_learned_is_what_the_file_holds(estimator, precision):
    """Weights and ranges alone say it all: the writer tells the same steps and integers from them."""
    network, weights, ranges, images = prepare(with_precision(catalog_network(Family.MOBILENET_V1), precision))
    module = build_quantised_module(network, weights, ranges, estimator)
    grow(module)
    learned, learned_ranges = module.deployed()
    model = write_onnx(network, learned, learned_ranges, batch=IMAGES)
    check_executed(network, model)
    assert_same(run_module(module, images), run_onnx(model, images))
    for layer in network.compute_nodes():
        name = f"{layer.name}.weight"
        integers, scale = quantise_weight(learned[name], layer.precision.weight_bits)
        stored = integers * scale.reshape(-1, *[1] * (integers.ndim - 1))
        np.testing.assert_array_equal(stored.astype(np.float32), learned[name], err_msg=name)
    for tensor, bits in plan_quantisation(network).bits.items():
        if tensor in learned_ranges:
            step = float(module.step(tensor).detach())
            assert activation_grid(learned_ranges[tensor], bits).scale == pytest.approx(step, rel=1e-6)


def test_weights_and_ranges_of_an_untouched_module_give_the_same_file():
    network, weights, ranges, _ = prepare(with_precision(catalog_network(Family.RESNET_18), W8A8))
    again, ranges_again = build_quantised_module(network, weights, ranges).deployed()
    for layer in network.compute_nodes():
        name = f"{layer.name}.weight"
        np.testing.assert_array_equal(quantise_weight(again[name], 8)[0], quantise_weight(weights[name], 8)[0])
    for tensor, bits in plan_quantisation(network).bits.items():
        if tensor in ranges:
            first, second = activation_grid(ranges[tensor], bits), activation_grid(ranges_again[tensor], bits)
            assert (first.zero_point, first.top) == (second.zero_point, second.top)
            assert first.scale == pytest.approx(second.scale, rel=1e-6)


def test_a_grid_never_reaches_beyond_a_relu6_so_that_its_layer_stays_in_integers():
    nodes = (CONV, Node("y", Op.RELU6, ("conv",)), replace(CONV, name="next", inputs=("y",)), *HEAD)
    network, weights, ranges, images = prepare(with_precision(make_network(*nodes), W8A8))
    module = build_quantised_module(network, weights, ranges, Estimator.LSQ)
    with torch.no_grad():
        for ratio in module.ratios():
            ratio.fill_(1e4)
    module.settle()
    learned, learned_ranges = module.deployed()
    assert 5.9 < learned_ranges["y"][1] <= 6.0
    model = write_onnx(network, learned, learned_ranges, batch=IMAGES)
    assert check_executed(network, model) == {"conv": "QLinearConv", "next": "QLinearConv"}
    assert_same(run_module(module, images), run_onnx(model, images))


def test_a_step_that_is_taken_below_zero_stays_positive():
    network, weights, ranges, images = prepare(with_precision(catalog_network(Family.MOBILENET_V1), Precision(4, 4)))
    module = build_quantised_module(network, weights, ranges, Estimator.LSQ)
    with torch.no_grad():
        for ratio in module.ratios():
            ratio.fill_(-3.0)
    module.settle()
    assert all((ratio > 0).all() for ratio in module.ratios())
    assert np.isfinite(run_module(module, images)).all()


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_channels_of_zeros_stay_zero(bits):
    network, weights, ranges, images = prepare(with_precision(catalog_network(Family.VGG_13), Precision(bits, 8)))
    name = f"{network.compute_nodes()[2].name}.weight"
    kernel = weights[name].copy()
    kernel[::2] = 0
    weights = weights | {name: kernel}
    for estimator in Estimator:
        module = build_quantised_module(network, weights, ranges, estimator)
        grow(module)
        learned, learned_ranges = module.deployed()
        assert not learned[name][::2].any()
        model = write_onnx(network, learned, learned_ranges, batch=IMAGES)
        assert_same(run_module(module, images), run_onnx(model, images))


@pytest.mark.parametrize(
    ("estimator", "weights_learn", "activations_learn"),
    [
        (Estimator.STE, False, False),
        (Estimator.PACT, False, True),
        (Estimator.LSQ, True, True),
        (Estimator.EWGS, True, True),
    ],
)
def test_each_estimator_learns_its_own_steps(estimator, weights_learn, activations_learn):
    network, weights, ranges, images = prepare(with_precision(catalog_network(Family.MOBILENET_V1), Precision(4, 4)))
    narrow = {name: (low / 2, high / 2) for name, (low, high) in ranges.items()}  # PACT learns from what is clipped
    module = build_quantised_module(network, weights, narrow, estimator)
    module(torch.from_numpy(images)).square().sum().backward()
    kernels = [ratio for ratio in module.ratios() if ratio.dim() > 1]
    tensors = [ratio for ratio in module.ratios() if ratio.dim() == 0]
    assert len(kernels) == weights_learn * len(network.compute_nodes())
    assert len(tensors) == activations_learn * len(ranges)
    assert all(ratio.grad is not None and ratio.grad.abs().max() > 0 for ratio in kernels)
    assert all(ratio.grad is not None and ratio.grad.abs() > 0 for ratio in tensors)


def test_every_weight_and_bias_gets_a_gradient():
    network, weights, ranges, images = prepare(with_precision(catalog_network(Family.MOBILENET_V2), Precision(4, 8)))
    module = build_quantised_module(network, weights, ranges, Estimator.EWGS)
    module(torch.from_numpy(images)).square().sum().backward()
    without = [name for name, parameter in module.named_parameters() if parameter.grad is None]
    assert without == []


def test_steps_of_weights_begin_as_lsq_says_where_that_is_finer_than_the_file():
    network, weights, ranges, _ = prepare(with_precision(catalog_network(Family.MOBILENET_V1), Precision(4, 4)))
    module = build_quantised_module(network, weights, ranges, Estimator.LSQ)
    seen = set()
    for layer in network.compute_nodes():
        kernel = weights[f"{layer.name}.weight"]
        of_file = quantise_weight(kernel, 4)[1]
        of_lsq = 2 * np.abs(kernel.reshape(len(kernel), -1)).mean(axis=1) / 7**0.5
        steps = module.step(f"{layer.name}.weight").detach().numpy().ravel()
        np.testing.assert_allclose(steps, np.minimum(of_file, of_lsq), rtol=2e-5)
        seen |= set(of_lsq < of_file)
    assert seen == {True, False}
    tensor = next(iter(ranges))
    assert module.step(tensor).item() == pytest.approx(float(activation_grid(ranges[tensor], 4).scale))


def test_weights_of_another_network_and_missing_ranges_are_refused():
    network, weights, ranges, _ = prepare(with_precision(catalog_network(Family.MOBILENET_V1), W8A8))
    missing = next(iter(ranges))
    with pytest.raises(ValueError, match=f"'{missing}' is quantised and has no range: calibrate first"):
        build_quantised_module(network, weights, {name: ranges[name] for name in ranges if name != missing})
    with pytest.raises(WeightsError):
        build_quantised_module(network, dict(list(weights.items())[1:]), ranges)
