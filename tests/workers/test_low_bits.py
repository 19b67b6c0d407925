"""Files in few bits compute what integer arithmetic of those bits would: ONNX Runtime against whole numbers."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # everybody calls it F
from hypothesis import assume, given, settings

from search_spaces.costs import parameters, size_bytes
from search_spaces.network import InputContract, Network, Node, Op
from search_spaces.precision import ACTIVATION_BITS, WEIGHT_BITS, Precision, parse_precision
from search_spaces.quantisation import plan_quantisation, why_emulated
from workers.calibrate import calibrate
from workers.onnx_quantize import ActivationGrid, activation_grid, image_range, quantise_bias, quantise_weight
from workers.onnx_session import check_executed, open_session
from workers.onnx_writer import INPUT_NAME, write_onnx
from workers.recount import recount
from workers.splits import normalise
from workers.testing import random_weights
from workers.torch_network import build_module
from workers.weight_grids import quantise_weights
from workers.weights import Weights

FEW = settings(max_examples=60, deadline=None)
INTEGERS = [bits for bits in WEIGHT_BITS if bits <= 8]


@st.composite
def chains(draw: st.DrawFn) -> Network:
    """Two or three convs with relus, and a classifier; every layer in bits of its own."""
    channels = draw(st.sampled_from([1, 3, 4]))
    nodes, shape = [Node("input", Op.INPUT)], (channels, 6, 6)
    for number in range(draw(st.integers(2, 3))):
        depthwise = number > 0 and draw(st.booleans())
        wide = channels if depthwise else draw(st.sampled_from([4, 8, 12]))
        kernel, source = draw(st.sampled_from([1, 3])), nodes[-1].name
        conv = Node(f"conv{number}", Op.CONV, (source,), wide, (kernel, kernel), groups=channels if depthwise else 1)
        stride = draw(st.sampled_from([1, 2]))
        nodes.append(replace(conv, padding=(kernel // 2,) * 4, stride=(stride, stride), bias=draw(st.booleans())))
        nodes.append(Node(f"relu{number}", draw(st.sampled_from([Op.RELU, Op.RELU6])), (conv.name,)))
        channels = wide
    nodes.append(Node("flat", Op.FLATTEN, (nodes[-1].name,)))
    nodes.append(Node("classifier", Op.LINEAR, ("flat",), 3, bias=True))
    network = Network("chain", InputContract(shape, (0.4,) * shape[0], (0.3,) * shape[0]), tuple(nodes), "classifier")
    bits = st.builds(Precision, st.sampled_from(INTEGERS), st.sampled_from([b for b in ACTIVATION_BITS if b <= 8]))
    return network.with_nodes({layer.name: replace(layer, precision=draw(bits)) for layer in network.compute_nodes()})


def random_images(network: Network, count: int) -> np.ndarray:
    pixels = np.random.default_rng(1).integers(0, 256, (count, *network.input.shape), dtype=np.uint8)
    return normalise(pixels, network.input)


def run_file(model: bytes, images: np.ndarray) -> np.ndarray:
    logits: np.ndarray = open_session(model).run(None, {INPUT_NAME: images})[0]
    return logits


def in_whole_numbers(network: Network, weights: Weights, ranges: dict, images: np.ndarray) -> np.ndarray:
    """A chain's logits: sums of products of integers, exact; only the scaling of a sum is rounded, as in a runtime."""
    bits = plan_quantisation(network).bits
    known = {**ranges, "input": image_range(network.input)}
    grids = {name: activation_grid(known[name], count) for name, count in bits.items()}
    grid, reads = grids["input"], "input"
    integers = to_grid(images.astype(np.float64) / grid.scale, grid)
    for layer in network.compute_nodes():
        weight, scale = quantise_weight(weights[f"{layer.name}.weight"], layer.precision.weight_bits)
        sums = layer_sums(layer, integers - grid.zero_point, weight)
        shape = (-1, *[1] * (sums.ndim - 2))
        if layer.bias:
            bias, _ = quantise_bias(weights[f"{layer.name}.bias"], grid.scale, scale)
            sums = sums + bias.reshape(shape)
        real = sums * (grid.scale * scale).astype(np.float64).reshape(shape)
        if layer.op is Op.LINEAR:
            return real
        reads = f"relu{layer.name.removeprefix('conv')}"
        ceiling = 6.0 if network.by_name()[reads].op is Op.RELU6 else np.inf
        grid = grids[reads]
        integers = to_grid(np.minimum(real, ceiling) / grid.scale, grid)
    raise AssertionError("a chain ends in a classifier")


def to_grid(steps: np.ndarray, grid: ActivationGrid) -> np.ndarray:
    return np.clip(np.rint(steps) + grid.zero_point, 0, grid.top).astype(np.int64)


def layer_sums(layer: Node, integers: np.ndarray, weight: np.ndarray) -> np.ndarray:
    inputs, kernel = torch.from_numpy(integers), torch.from_numpy(weight.astype(np.int64))
    if layer.op is Op.LINEAR:
        return (inputs.flatten(1) @ kernel.T).numpy()
    return F.conv2d(inputs, kernel, None, layer.stride, layer.padding[:2], groups=layer.groups).numpy()


@FEW
@given(chains())
def test_any_bits_give_what_whole_numbers_give(network: Network) -> None:
    weights, images = random_weights(network), random_images(network, 8)
    ranges = calibrate(network, weights, images)
    # Behind a layer that is dead on all images the runtime may compute in floats, and the check refuses the file.
    assume(all(high > low for low, high in ranges.values()))
    model = write_onnx(network, weights, ranges, batch=8)

    assert set(check_executed(network, model).values()) <= {"QLinearConv", "QGemm"}
    actual, expected = run_file(model, images), in_whole_numbers(network, weights, ranges, images)
    # A sum that lies between two steps may be rounded either way: that moves one input of the classifier by one step.
    flipped = step_of_logits(network, weights, ranges)
    assert np.abs(actual - expected).max() <= flipped + 1e-5
    assert (np.abs(actual - expected) <= 1e-4 * max(1.0, float(np.abs(expected).max()))).mean() > 0.9


def step_of_logits(network: Network, weights: Weights, ranges: dict) -> float:
    source = network.by_name()["flat"].inputs[0]
    step = activation_grid(ranges[source], plan_quantisation(network).bits[source]).scale
    return float(step * np.abs(quantise_weights(network, weights)["classifier.weight"]).max())


@pytest.mark.parametrize("text", ["w4a32", "w1a16", "w16a16", "w16a32", "k2a32"])
def test_weights_in_few_bits_beside_wide_activations_compute_in_floats_of_their_grid(text: str) -> None:
    precision = parse_precision(text)
    nodes = (
        Node("input", Op.INPUT),
        Node("conv0", Op.CONV, ("input",), 8, (3, 3), bias=True, precision=precision),
        Node("relu0", Op.RELU, ("conv0",)),
        Node("flat", Op.FLATTEN, ("relu0",)),
        Node("classifier", Op.LINEAR, ("flat",), 3, bias=True, precision=precision),
    )
    network = Network("floats", InputContract((2, 6, 6), (0.4,) * 2, (0.3,) * 2), nodes, "classifier")
    weights, images = random_weights(network), random_images(network, 5)
    assert calibrate(network, weights, images) == {}, "nothing is computed in integers"

    model = write_onnx(network, weights, batch=5)

    assert set(check_executed(network, model).values()) <= {"Conv", "FusedConv", "Gemm"}
    with torch.no_grad():
        expected = build_module(network, quantise_weights(network, weights))(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(run_file(model, images), expected, rtol=1e-4, atol=1e-4)
    assert recount(network, model) == {"parameters": parameters(network), "size_bytes": size_bytes(network)}


def test_what_is_emulated_is_said_and_what_is_not_is_not() -> None:
    def of(*texts: str) -> str:
        nodes = [Node("input", Op.INPUT)]
        for number, text in enumerate(texts):
            nodes.append(Node(f"conv{number}", Op.CONV, (nodes[-1].name,), 4, precision=parse_precision(text)))
        return why_emulated(
            Network("n", InputContract((4, 2, 2), (0.4,) * 4, (0.3,) * 4), tuple(nodes), nodes[-1].name)
        )

    assert of("w8a8", "fp32", "w8a8") == ""
    assert of("w8a8", "w4a4") == "w4a4: grid values in 8-bit containers"
    assert of("w8a4") == "w8a4: grid values in 8-bit containers"
    assert of("w4a32") == "w4a32: weights are values of its grid, held and computed in fp32"
    assert of("k2a32").startswith("k2a32: weights are values of its codebook")
    assert "activations are computed in fp32, unrounded" in of("w16a16")
