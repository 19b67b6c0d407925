"""Pruning by slicing computes what the base computes with the removed channels zeroed."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from search_spaces.apply import apply, structure_of
from search_spaces.design import Design
from search_spaces.network import InputContract, Network, Node, Op
from tests.numpy_network import random_weights, run
from tests.random_networks import designs, networks
from workers.importance.norms import norm_scores
from workers.torch_network import build_module
from workers.transforms.prune import choose_channels, slice_weights
from workers.transforms.regroup import regroup
from workers.weights import check_weights


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_sliced_network_is_the_base_with_the_removed_channels_zeroed(data: st.DataObject) -> None:
    network = data.draw(networks())
    design = data.draw(designs(network))
    exact = random_weights(network, seed=0)
    weights = {name: array.astype(np.float32) for name, array in exact.items()}
    kept = choose_channels(network, design, norm_scores(network, weights, order=1))

    applied = apply(network, design)
    sliced = regroup(applied, slice_weights(network, weights, kept))

    check_weights(applied, sliced)
    images = np.random.default_rng(1).standard_normal((2, *network.input.shape))
    atoms = structure_of(network).coupling.atoms
    masks = {name: np.isin(np.arange(len(ids)), kept[name]) for name, ids in atoms.items()}
    expected = run(network, exact, images, masks)[network.output]
    with torch.inference_mode():
        found = build_module(applied, sliced).eval()(torch.from_numpy(images.astype(np.float32))).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * max(1.0, np.abs(expected).max()))


def residual_network() -> Network:
    nodes = (
        Node("image", Op.INPUT),
        Node("stem", Op.CONV, ("image",), channels=4),
        Node("inner", Op.CONV, ("stem",), channels=4),
        Node("sum", Op.ADD, ("stem", "inner")),
        Node("pool", Op.GLOBAL_AVERAGE_POOL, ("sum",)),
        Node("flat", Op.FLATTEN, ("pool",)),
        Node("logits", Op.LINEAR, ("flat",), channels=2),
    )
    return Network("residual", InputContract((1, 4, 4), (0.0,), (1.0,)), nodes, "logits")


def residual_weights() -> dict[str, np.ndarray]:
    stem = np.ones((4, 1, 1, 1), np.float32)
    inner = np.diag([4.0, 1.0, 1.0, 1.0]).astype(np.float32).reshape(4, 4, 1, 1) * 100
    return {
        "stem.weight": stem,
        "inner.weight": inner,
        "logits.weight": np.tile(np.arange(1, 5, dtype=np.float32), (2, 1)),
    }


def test_in_a_residual_group_no_layer_outvotes_the_others_by_its_scale() -> None:
    network, weights = residual_network(), residual_weights()

    scores = norm_scores(network, weights, order=1)

    atoms = structure_of(network).coupling.atoms["stem"]
    # What inner reads has the norms 400, 100, 100, 100 and the mean 175; what the logits read 2, 4, 6, 8 and 5.
    expected = np.array([400, 100, 100, 100]) / 175 + np.array([2, 4, 6, 8]) / 5
    np.testing.assert_allclose(scores[atoms], expected)


def test_the_channels_of_highest_score_stay_in_order() -> None:
    network, weights = residual_network(), residual_weights()
    scores = norm_scores(network, weights, order=1)

    kept = choose_channels(network, Design.of({"channels/stem": 2}), scores)

    assert kept["stem"].tolist() == [0, 3]
    assert kept["inner"].tolist() == [0, 3]
    assert kept["logits"].tolist() == [0, 1]


@pytest.mark.parametrize(("order", "winner"), [(1, 1), (2, 0)])
def test_norms_differ_in_whom_they_prefer(order: int, winner: int) -> None:
    nodes = (
        Node("image", Op.INPUT),
        Node("layer", Op.CONV, ("image",), channels=2),
        Node("flat", Op.FLATTEN, ("layer",)),
        Node("logits", Op.LINEAR, ("flat",), channels=4),
    )
    network = Network("two", InputContract((1, 1, 1), (0.0,), (1.0,)), nodes, "logits")
    readers = np.array([[3, 0, 0, 0], [1, 1, 1, 1]], np.float32).T
    weights = {"layer.weight": np.ones((2, 1, 1, 1), np.float32), "logits.weight": readers}

    kept = choose_channels(network, Design.of({"channels/layer": 1}), norm_scores(network, weights, order))

    assert kept["layer"].tolist() == [winner]


def test_grouped_readers_score_the_channels_of_their_own_block() -> None:
    nodes = (
        Node("image", Op.INPUT),
        Node("made", Op.CONV, ("image",), channels=4),
        Node("grouped", Op.CONV, ("made",), channels=6, groups=2),
        Node("flat", Op.FLATTEN, ("grouped",)),
        Node("logits", Op.LINEAR, ("flat",), channels=2),
    )
    network = Network("grouped", InputContract((1, 1, 1), (0.0,), (1.0,)), nodes, "logits")
    grouped = np.array([[1, 2], [1, 2], [1, 2], [3, 4], [3, 4], [3, 4]], np.float32).reshape(6, 2, 1, 1)
    ones = {"made.weight": np.ones((4, 1, 1, 1), np.float32), "logits.weight": np.ones((2, 6), np.float32)}

    scores = norm_scores(network, {**ones, "grouped.weight": grouped}, order=1)

    np.testing.assert_allclose(scores[structure_of(network).coupling.atoms["made"]], np.array([3, 6, 9, 12]) / 7.5)
