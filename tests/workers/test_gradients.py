"""Gradients and Hessian products against torch's own, against explicit Hessians, and against motion along the flow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # everybody calls it F
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.catalog import build_network
from search_spaces.network import InputContract, Network, Node, Op
from search_spaces.spec import Family, NetworkSpec
from tests.random_networks import networks
from workers.importance import gradients
from workers.importance.gradients import (
    Gradients,
    NoGradientError,
    Sample,
    draw_balanced,
    draw_first,
    hessian_gradient,
    loss_gradient,
)
from workers.splits import Split, normalise
from workers.testing import random_weights
from workers.torch_network import OPERATORS, build_module
from workers.weights import Weights

pytestmark = pytest.mark.usefixtures("one_thread")

CLASSES = 3


def tiny() -> Network:
    """Every kind of layer and of batch norm in so few parameters that the Hessian can be written down."""
    nodes = (
        Node("image", Op.INPUT),
        Node("stem", Op.CONV, ("image",), channels=2, kernel=(3, 3), padding=(1, 1, 1, 1)),
        Node("stem.norm", Op.BATCH_NORM, ("stem",)),
        Node("stem.swish", Op.HARD_SWISH, ("stem.norm",)),
        Node("depthwise", Op.CONV, ("stem.swish",), channels=2, groups=2, kernel=(2, 2)),
        Node("gate", Op.HARD_SIGMOID, ("depthwise",)),
        Node("gated", Op.MULTIPLY, ("depthwise", "gate")),
        Node("apart", Op.BATCH_NORM, ("gated",)),
        Node("flat", Op.FLATTEN, ("apart",)),
        Node("logits", Op.LINEAR, ("flat",), channels=CLASSES, bias=True),
    )
    return Network("tiny", InputContract((1, 3, 3), (0.4,), (0.3,)), nodes, "logits")


def make_split(network: Network, count: int, classes: int = CLASSES, seed: int = 0) -> Split:
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, *network.input.shape), dtype=np.uint8)
    return Split("train", images, generator.integers(0, classes, count), "")


def mean_loss(network: Network, weights: Weights, sample: Sample, temperature: float):
    """The loss as a function of all layers' weights in one vector, by torch's own modules in float64."""
    module = build_module(network, weights).eval().double()
    names = [f"{node.name}/weight" for node in network.compute_nodes()]
    shapes = [dict(module.named_parameters())[name].shape for name in names]
    images = torch.from_numpy(normalise(sample.images, network.input)).double()
    labels, shares = torch.from_numpy(sample.labels), torch.from_numpy(sample.shares).double()

    def loss(vector: torch.Tensor) -> torch.Tensor:
        pieces = torch.split(vector, [shape.numel() for shape in shapes])
        values = {name: piece.view(shape) for name, piece, shape in zip(names, pieces, shapes, strict=True)}
        outputs = torch.func.functional_call(module, values, (images,))
        return F.cross_entropy(outputs / temperature, labels, reduction="none") @ shares

    start = torch.cat([dict(module.named_parameters())[name].detach().reshape(-1) for name in names])
    return loss, start


def as_vector(network: Network, arrays: Gradients) -> np.ndarray:
    return np.concatenate([arrays[node.name].ravel() for node in network.compute_nodes()]).astype(float)


@pytest.mark.parametrize("temperature", [1.0, 5.0, 200.0])
def test_products_are_those_of_the_explicit_hessian(temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    # Torch has no second derivative of its hard sigmoid; the same function by its definition has one.
    monkeypatch.setitem(OPERATORS, Op.HARD_SIGMOID, lambda _weights, _node, inputs: F.relu6(inputs[0] + 3) / 6)
    network = tiny()
    weights, sample = random_weights(network, seed=3), draw_balanced(make_split(network, 12))
    loss, start = mean_loss(network, weights, sample, temperature)
    expected = torch.autograd.functional.jacobian(loss, start)
    hessian = torch.autograd.functional.hessian(loss, start)

    gradient, product = hessian_gradient(network, weights, sample, temperature)

    scale = float(expected.abs().max())
    np.testing.assert_allclose(as_vector(network, gradient), expected.numpy(), rtol=1e-4, atol=1e-5 * scale)
    wanted = (hessian @ expected).numpy()
    np.testing.assert_allclose(as_vector(network, product), wanted, rtol=1e-3, atol=1e-5 * np.abs(wanted).max())
    assert np.abs(hessian.numpy()).max() > 0


@pytest.mark.parametrize("family", Family)
def test_dual_numbers_give_what_double_backward_gives(family: Family) -> None:
    """On every family: residual sums, gates, concatenations, shuffles, groups."""
    side = 75 if family is Family.INCEPTION_V3 else 32
    spec = NetworkSpec(family=family, width=0.1, input=(3, side, side))
    network = build_network(spec, CLASSES, (0.5,) * 3, (0.5,) * 3)
    if family is Family.MOBILENET_V3_SMALL:
        gates = [node for node in network.nodes if node.op is Op.HARD_SIGMOID]  # torch has no second derivative
        network = network.with_nodes({node.name: Node(node.name, Op.SIGMOID, node.inputs) for node in gates})
    weights, sample = random_weights(network), draw_first(make_split(network, 3))
    module = build_module(network, weights).eval()
    leaves = [module.weight(f"{node.name}.weight") for node in network.compute_nodes()]
    outputs = module(torch.from_numpy(normalise(sample.images, network.input)))
    loss = F.cross_entropy(outputs, torch.from_numpy(sample.labels))
    slopes = torch.autograd.grad(loss, leaves, create_graph=True)
    along = sum((slope * slope.detach()).sum() for slope in slopes)
    expected = torch.autograd.grad(along, leaves, materialize_grads=True)

    gradient, product = hessian_gradient(network, weights, sample)

    for node, slope, second in zip(network.compute_nodes(), slopes, expected, strict=True):
        assert relative_error(gradient[node.name], slope.detach().numpy()) < 2e-3, node.name
        assert relative_error(product[node.name], second.numpy()) < 2e-3, node.name


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-12))


def test_norms_grow_along_the_flow_as_the_scores_say() -> None:
    """d|theta|^2/dt = -2 theta.g, and d2|theta|^2/dt2 = 2 (g.g + theta.Hg), by finite differences in time."""
    network = tiny()
    weights, sample = random_weights(network, seed=4), draw_balanced(make_split(network, 12, seed=1))
    loss, start = mean_loss(network, weights, sample, 1.0)
    step = 1e-3

    def slope(at: torch.Tensor) -> torch.Tensor:
        return torch.autograd.functional.jacobian(loss, at)

    def flow(at: torch.Tensor, seconds: float) -> torch.Tensor:
        """One Runge-Kutta step of d theta / dt = -g."""
        a = -slope(at)
        b = -slope(at + seconds / 2 * a)
        c = -slope(at + seconds / 2 * b)
        d = -slope(at + seconds * c)
        return at + seconds / 6 * (a + 2 * b + 2 * c + d)

    before, now, after = (float(at @ at) for at in (flow(start, -step), start, flow(start, step)))
    gradient, product = (as_vector(network, arrays) for arrays in hessian_gradient(network, weights, sample))
    theta = start.numpy()
    assert (after - before) / (2 * step) == pytest.approx(-2 * theta @ gradient, rel=1e-4)
    assert (after - 2 * now + before) / step**2 == pytest.approx(2 * (gradient @ gradient + theta @ product), rel=1e-3)


def test_the_result_does_not_depend_on_how_images_are_batched(monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny()
    weights, sample = random_weights(network), draw_balanced(make_split(network, 30))
    whole = hessian_gradient(network, weights, sample)
    monkeypatch.setattr(gradients, "_LARGEST_BATCH", 7)
    parts = hessian_gradient(network, weights, sample)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(as_vector(network, one), as_vector(network, other), rtol=1e-4, atol=1e-6)


def test_large_maps_go_in_small_batches() -> None:
    spec = NetworkSpec(family=Family.VGG_13, width=1.0, input=(3, 224, 224))
    large = build_network(spec, 10, (0.5,) * 3, (0.5,) * 3)
    assert gradients._batch_size(large, kept=1) < 10
    assert gradients._batch_size(large, kept=3) >= 1
    assert gradients._batch_size(tiny(), kept=3) == 128


def test_values_and_single_outputs_have_their_own_losses() -> None:
    nodes = (
        Node("image", Op.INPUT),
        Node("flat", Op.FLATTEN, ("image",)),
        Node("output", Op.LINEAR, ("flat",), channels=1, bias=True),
    )
    network = Network("one", InputContract((1, 2, 2), (0.5,), (0.5,)), nodes, "output")
    weights = random_weights(network)
    split = make_split(network, 9, classes=2)
    x = normalise(split.images, network.input).reshape(9, 4).astype(float)
    outputs = x @ weights["output.weight"][0] + weights["output.bias"][0]

    found = loss_gradient(network, weights, draw_first(split))["output"][0]
    np.testing.assert_allclose(found, (1 / (1 + np.exp(-outputs)) - split.labels) @ x / 9, rtol=1e-4, atol=1e-6)

    values = np.linspace(-100, 200, 9).astype(np.float32)
    split = Split("train", split.images, values, "")
    found = loss_gradient(network, weights, draw_balanced(split), temperature=200.0)["output"][0]
    expected = 2 * (outputs - values) @ x / 9 / values.astype(float).var()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=60), st.integers(1, 80))
def test_every_class_counts_alike(labels: list[int], count: int) -> None:
    images = np.zeros((len(labels), 1, 1, 1), np.uint8)
    sample = draw_balanced(Split("train", images, np.array(labels), ""), count)
    assert len(sample.labels) <= count
    weight_of = [sample.shares[sample.labels == label].sum() for label in np.unique(sample.labels)]
    np.testing.assert_allclose(weight_of, 1 / len(weight_of), rtol=1e-5)
    assert len(weight_of) == min(len(set(labels)), count)


@settings(max_examples=25, deadline=None)
@given(networks())
def test_gradients_of_any_network_are_those_of_its_module(network: Network) -> None:
    """Folding is a way of computing, not another function of the raw weights."""
    weights = random_weights(network)
    sample = draw_first(make_split(network, 2, classes=2))
    module = build_module(network, weights).eval()
    outputs = module(torch.from_numpy(normalise(sample.images, network.input)))
    if outputs.shape[1] == 1:
        outputs = torch.cat([torch.zeros_like(outputs), outputs], dim=1)
    torch.autograd.backward(F.cross_entropy(outputs, torch.from_numpy(sample.labels)))
    found = loss_gradient(network, weights, sample)
    for node in network.compute_nodes():
        slope = module.weight(f"{node.name}.weight").grad
        expected = np.zeros_like(found[node.name]) if slope is None else slope.numpy()
        largest = max(float(np.abs(expected).max()), 1e-3)
        np.testing.assert_allclose(found[node.name], expected, rtol=1e-2, atol=1e-3 * largest, err_msg=node.name)


def test_what_no_gradient_passes_is_refused_by_name(opaque_body: str) -> None:
    nodes = (
        Node("image", Op.INPUT),
        Node("flat", Op.FLATTEN, ("image",)),
        Node("round", Op.POINTWISE, ("flat",), body=opaque_body),
        Node("output", Op.LINEAR, ("round",), channels=2, bias=True),
    )
    network = Network("one", InputContract((1, 2, 2), (0.5,), (0.5,)), nodes, "output")
    with pytest.raises(NoGradientError, match=r"passes round, .* such as l1 or filter_l2"):
        loss_gradient(network, random_weights(network), draw_first(make_split(network, 4, classes=2)))


@pytest.fixture
def opaque_body() -> str:
    from onnx import TensorProto, helper

    from workers.opaque import encode_body

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x0", "y")]
    return encode_body(helper.make_graph([helper.make_node("Round", ["x0"], ["y"])], "round", value[:1], value[1:]))
