"""Least-squares reconstruction: closed forms, the samples it sees, and what it saves of a trained network."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # everybody calls it F
from hypothesis import given, settings

from search_spaces.apply import apply, structure_of
from search_spaces.design import Design
from search_spaces.network import InputContract, Network, Node, Op
from search_spaces.spec import Reconstruct
from tests.numpy_network import random_weights, run
from tests.random_networks import designs, networks
from tests.workers.torch_accuracy import accuracy
from workers.datasets import load_dataset
from workers.importance.norms import norm_scores
from workers.progress import ignore_progress
from workers.recipe import Recipe
from workers.splits import Splits, make_splits, normalise
from workers.torch_network import build_module
from workers.train import train
from workers.transforms.prune import choose_channels, slice_weights
from workers.transforms.reconstruct import RIDGE, observe, reconstruct, ridge_regression
from workers.transforms.regroup import regroup
from workers.transforms.sample import columns_to_filters, draw_windows, filters_to_columns, sample_inputs
from workers.weights import Weights, check_weights

pytestmark = pytest.mark.usefixtures("one_thread")


def brought_to(
    network: Network, weights: Weights, design: Design, images: np.ndarray, method: Reconstruct
) -> tuple[Network, Weights]:
    applied = apply(network, design)
    scores = norm_scores(network, weights, order=1)
    kept = choose_channels(network, design, scores)
    sliced = regroup(applied, slice_weights(network, weights, kept))
    observed = observe(network, weights, images)
    return applied, reconstruct(network, applied, sliced, kept, observed, method)


def outputs(network: Network, weights: Weights, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return build_module(network, weights).eval()(torch.from_numpy(images)).numpy()


def random_float_weights(network: Network) -> Weights:
    return {name: array.astype(np.float32) for name, array in random_weights(network, seed=0).items()}


# --- samples ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "groups", "dilation"),
    [
        ((1, 1), (1, 1), (0, 0, 0, 0), 1, (1, 1)),
        ((3, 3), (1, 1), (1, 1, 1, 1), 1, (1, 1)),
        ((3, 3), (2, 2), (0, 0, 1, 1), 1, (1, 1)),
        ((5, 3), (2, 1), (2, 1, 2, 1), 2, (1, 1)),
        ((3, 3), (1, 1), (1, 1, 1, 1), 4, (1, 1)),
        ((3, 3), (2, 2), (1, 1, 1, 1), 8, (1, 1)),
        ((3, 3), (1, 2), (2, 3, 2, 3), 1, (2, 3)),
        ((3, 3), (1, 1), (2, 2, 2, 2), 8, (2, 2)),
    ],
)
def test_sampled_inputs_times_filters_are_the_convs_outputs(kernel, stride, padding, groups, dilation) -> None:
    conv = Node("conv", Op.CONV, ("image",), 16, kernel, stride, padding, groups, dilation=dilation)
    network = Network("one", InputContract((8, 9, 7), (0.0,) * 8, (1.0,) * 8), (Node("image", Op.INPUT), conv), "conv")
    images = torch.randn(6, 8, 9, 7).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(16, 8 // groups, *kernel)
    window = draw_windows(network, len(images))["conv"]

    rows = sample_inputs(conv, images, window, rows=10**9)
    sampled = (rows @ filters_to_columns(conv, weight)).transpose(0, 1).reshape(rows.shape[1], 16)

    top, left, bottom, right = padding
    maps = F.conv2d(F.pad(images, (left, right, top, bottom)), weight, None, stride, 0, dilation, groups)
    positions = maps.permute(0, 2, 3, 1).reshape(-1, 16)
    distances = (sampled[:, None] - positions[None]).abs().amax(dim=2)
    assert distances.min(dim=1).values.max() < 1e-4  # each sampled row is one of the conv's positions
    assert len(set(distances.argmin(dim=1).tolist())) == len(sampled)  # and none is drawn twice
    assert len(sampled) == 6 * min(16, maps.shape[2] * maps.shape[3])
    torch.testing.assert_close(columns_to_filters(conv, filters_to_columns(conv, weight), weight.shape), weight)


def test_the_first_rows_are_spread_over_all_images() -> None:
    conv = Node("conv", Op.CONV, ("image",), 4)
    network = Network("one", InputContract((1, 8, 8), (0.0,), (1.0,)), (Node("image", Op.INPUT), conv), "conv")

    window = draw_windows(network, 20)["conv"]

    assert sorted((window.index[:20, 0] // 64).tolist()) == list(range(20))


# --- the regression ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_intercept", [True, False])
def test_ridge_regression_minimises_the_stated_objective(has_intercept: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(2, 60, 5, generator=generator) + 0.5
    Y = torch.randn(2, 60, 3, generator=generator) + 2
    start = torch.randn(2, 5, 3, generator=generator)

    solution, intercept = ridge_regression(X, Y, start, has_intercept)

    for group in range(2):
        x, y, origin = X[group].double().numpy(), Y[group].double().numpy(), start[group].double().numpy()
        mean_x, mean_y = (x.mean(0), y.mean(0)) if has_intercept else (0 * x[0], 0 * y[0])
        centred = x - mean_x
        penalty = RIDGE * (centred**2).sum(0).mean()
        # Ridge towards `origin` is plain least squares with sqrt(penalty) * I as further rows.
        rows = np.vstack([centred, np.sqrt(penalty) * np.eye(5)])
        targets = np.vstack([y - mean_y, np.sqrt(penalty) * origin])
        expected = np.linalg.lstsq(rows, targets, rcond=None)[0]
        np.testing.assert_allclose(solution[group], expected, atol=1e-4)
        np.testing.assert_allclose(intercept[3 * group : 3 * group + 3], mean_y - mean_x @ expected, atol=1e-4)


def test_dead_inputs_leave_the_weights_as_they_were() -> None:
    start = torch.randn(1, 4, 2)

    solution, intercept = ridge_regression(torch.zeros(1, 30, 4), torch.ones(1, 30, 2), start, has_intercept=True)

    torch.testing.assert_close(solution, start)
    torch.testing.assert_close(intercept, torch.ones(2))


# --- whole networks ---------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_network_can_be_reconstructed_in_any_way(data: st.DataObject) -> None:
    network = data.draw(networks())
    design, method = data.draw(designs(network)), data.draw(st.sampled_from(Reconstruct))
    weights = random_float_weights(network)
    images = np.random.default_rng(0).standard_normal((24, *network.input.shape)).astype(np.float32)

    applied, rebuilt = brought_to(network, weights, design, images, method)

    check_weights(applied, rebuilt)
    assert np.isfinite(outputs(applied, rebuilt, images)).all()


@pytest.mark.parametrize("op", [Op.SLICE, Op.FLATTEN])
def test_a_view_that_is_read_later_keeps_its_values(op) -> None:
    """The relu behind the conv must not be computed in the memory that a slice or flatten of the conv looks at."""
    view = Node("view", op, ("conv",), channels=4 if op is Op.SLICE else None)
    parts = [view] if op is Op.FLATTEN else [view, Node("late", Op.FLATTEN, ("view",))]
    nodes = (
        Node("image", Op.INPUT),
        Node("conv", Op.CONV, ("image",), 4),
        *parts,
        Node("relu", Op.RELU, ("conv",)),
        Node("flat", Op.FLATTEN, ("relu",)),
        Node("both", Op.CONCAT, (parts[-1].name, "flat")),
        Node("classifier", Op.LINEAR, ("both",), 3),
    )
    network = Network("viewed", InputContract((2, 3, 3), (0.0,) * 2, (1.0,) * 2), nodes, "classifier")
    weights = random_float_weights(network)
    images = np.random.default_rng(0).standard_normal((5, 2, 3, 3)).astype(np.float32)
    expected = run(network, {name: value.astype(float) for name, value in weights.items()}, images)["classifier"]
    np.testing.assert_allclose(observe(network, weights, images).outputs["classifier"].numpy(), expected, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_what_is_not_pruned_is_not_touched(data: st.DataObject) -> None:
    network = data.draw(networks())
    weights = random_float_weights(network)
    images = np.random.default_rng(0).standard_normal((16, *network.input.shape)).astype(np.float32)

    _, rebuilt = brought_to(network, weights, Design.of({}), images, Reconstruct.LEAST_SQUARES)

    assert rebuilt.keys() == weights.keys()
    assert all(np.array_equal(rebuilt[name], weights[name]) for name in weights)


_LAYERS = (("first", 3, 1, 1), ("second", 3, 2, 1), ("third", 1, 1, 1))
_WITH_DEPTHWISE = (("first", 3, 1, 1), ("second", 3, 2, 16), ("third", 1, 1, 1))
_DEPTHWISE_LATER = (("first", 3, 1, 1), ("mixed", 1, 1, 1), ("second", 3, 2, 16), ("third", 1, 1, 1))


def small_network(layers: tuple[tuple[str, int, int, int], ...] = _LAYERS) -> Network:
    """Conv-norm-relu of 16 channels for each (name, kernel, stride, groups), and a classifier."""
    nodes = [Node("image", Op.INPUT)]
    for name, kernel, stride, group in layers:
        padding = (kernel // 2,) * 4
        nodes.append(Node(name, Op.CONV, (nodes[-1].name,), 16, (kernel, kernel), (stride, stride), padding, group))
        nodes.append(Node(f"{name}.norm", Op.BATCH_NORM, (name,)))
        nodes.append(Node(f"{name}.relu", Op.RELU, (f"{name}.norm",)))
    nodes.append(Node("pool", Op.GLOBAL_AVERAGE_POOL, (nodes[-1].name,)))
    nodes.append(Node("flat", Op.FLATTEN, ("pool",)))
    nodes.append(Node("logits", Op.LINEAR, ("flat",), 10, bias=True))
    return Network("small", InputContract((1, 8, 8), (0.3,), (0.4,)), tuple(nodes), "logits")


@pytest.mark.parametrize("layers", [_LAYERS, _WITH_DEPTHWISE], ids=["dense", "depthwise"])
def test_redundant_channels_are_pruned_without_loss(layers: tuple[tuple[str, int, int, int], ...]) -> None:
    """Every channel comes twice, so half of them say it all: least squares finds the weights that show it."""
    network = small_network(layers)
    weights = random_float_weights(network)
    for name, array in weights.items():
        if not name.startswith("logits"):
            array[8:] = array[:8]
        if array.ndim > 1 and array.shape[1] == 16:
            array[:, 8:] *= 0.1  # so that the first of each two is the one that is kept
    images = np.random.default_rng(0).standard_normal((200, 1, 8, 8)).astype(np.float32)
    groups = structure_of(network).coupling.groups
    design = Design.of({f"channels/{group.name}": 8 for group in groups if not group.frozen})
    expected = outputs(network, weights, images)

    errors = {
        method: np.abs(outputs(*brought_to(network, weights, design, images, method), images) - expected).mean()
        for method in Reconstruct
    }

    assert errors[Reconstruct.LEAST_SQUARES] < 0.02 * errors[Reconstruct.NONE]
    assert errors[Reconstruct.LEAST_SQUARES] < 0.02 * errors[Reconstruct.BATCH_NORM]


def test_recalibrated_norms_have_the_pruned_networks_own_statistics() -> None:
    network = replace(small_network(), input=InputContract((1, 4, 4), (0.0,), (1.0,)))  # 16 positions: all are seen
    weights = random_float_weights(network)
    images = np.random.default_rng(0).standard_normal((100, 1, 4, 4)).astype(np.float32)

    applied, rebuilt = brought_to(network, weights, Design.of({"channels/first": 8}), images, Reconstruct.BATCH_NORM)

    with torch.inference_mode():
        seen = build_module(applied, rebuilt).eval().observe(torch.from_numpy(images), ["second"])["second"].numpy()
    np.testing.assert_allclose(rebuilt["second.norm.running_mean"], seen.mean(axis=(0, 2, 3)), atol=1e-4)
    np.testing.assert_allclose(rebuilt["second.norm.running_var"], seen.var(axis=(0, 2, 3)), rtol=1e-2)
    np.testing.assert_array_equal(rebuilt["second.weight"], brought_to_none(network, weights, images)["second.weight"])


def brought_to_none(network: Network, weights: Weights, images: np.ndarray) -> Weights:
    return brought_to(network, weights, Design.of({"channels/first": 8}), images, Reconstruct.NONE)[1]


# --- a trained network ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    return make_splits(load_dataset("digits", tmp_path_factory.mktemp("home")))


def residual(network: Network) -> Network:
    """The same with an addition around the last conv."""
    nodes = {node.name: node for node in network.nodes}
    ordered = list(network.nodes)
    at = ordered.index(nodes["third.norm"])
    ordered.insert(at + 1, Node("sum", Op.ADD, ("third.norm", "second.relu")))
    ordered[at + 2] = replace(nodes["third.relu"], inputs=("sum",))
    return replace(network, nodes=tuple(ordered))


@pytest.mark.parametrize("network", [small_network(), residual(small_network())], ids=["plain", "residual"])
def test_least_squares_saves_more_of_a_trained_network_than_norms_and_these_more_than_nothing(
    network: Network, splits: Splits
) -> None:
    torch.set_num_threads(1)
    recipe = Recipe(epochs=10, batch_size=32, learning_rate=0.1)
    weights = train(network, None, splits.train, recipe, ignore_progress, lambda: None)
    images = normalise(splits.calibrate.images, network.input)
    groups = structure_of(network).coupling.groups
    design = Design.of({f"channels/{group.name}": 8 for group in groups if not group.frozen})

    shares = {
        method: accuracy(*brought_to(network, weights, design, images, method), splits.score) for method in Reconstruct
    }

    base = accuracy(network, weights, splits.score)
    assert base > 0.85
    assert shares[Reconstruct.LEAST_SQUARES] > shares[Reconstruct.BATCH_NORM] > shares[Reconstruct.NONE]
    assert shares[Reconstruct.LEAST_SQUARES] > base - 0.2


def test_wider_groups_use_their_further_weights() -> None:
    """What pruning made of a channel is mended from its neighbours, which one channel per group cannot do."""
    network = small_network(_DEPTHWISE_LATER)
    weights = random_float_weights(network)
    images = np.random.default_rng(0).standard_normal((300, 1, 8, 8)).astype(np.float32)
    expected = outputs(network, weights, images)

    errors = {}
    for group_size in (1, 8):
        design = Design.of({"channels/first": 8, "group_size/second": group_size})
        applied, rebuilt = brought_to(network, weights, design, images, Reconstruct.LEAST_SQUARES)
        errors[group_size] = np.square(outputs(applied, rebuilt, images) - expected).mean()

    assert np.count_nonzero(rebuilt["second.weight"]) > 16 * 9  # more than one channel per group has
    assert errors[8] < errors[1]


def test_what_a_conv_loses_when_its_groups_are_cut_is_mended() -> None:
    """Nothing is pruned, and yet the layer is no longer exact: half of what each output reads is gone."""
    network = small_network()
    third = replace(network.by_name()["third"], groups=2)
    network = network.with_nodes({"third": third})
    weights = random_float_weights(network)
    images = np.random.default_rng(0).standard_normal((300, 1, 8, 8)).astype(np.float32)
    expected = outputs(network, weights, images)

    errors = {}
    for method in (Reconstruct.NONE, Reconstruct.LEAST_SQUARES):
        applied, rebuilt = brought_to(network, weights, Design.of({"groups/network": 4}), images, method)
        errors[method] = np.square(outputs(applied, rebuilt, images) - expected).mean()

    assert applied.by_name()["third"].groups == 4
    assert errors[Reconstruct.LEAST_SQUARES] < 0.7 * errors[Reconstruct.NONE]
    wider, kept = brought_to(network, weights, Design.of({"groups/network": 1}), images, Reconstruct.LEAST_SQUARES)
    np.testing.assert_allclose(outputs(wider, kept, images), expected, rtol=1e-4, atol=1e-5)
