"""Larger groups start as exactly what the layer computed; smaller ones keep what they still read."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from search_spaces.apply import apply
from search_spaces.catalog import build_network
from search_spaces.design import Design
from search_spaces.network import InputContract, Network, Node, Op
from search_spaces.spec import NetworkSpec
from workers.fold import fold_batch_norms
from workers.onnx_session import open_session
from workers.onnx_writer import INPUT_NAME, write_onnx
from workers.testing import random_weights
from workers.torch_network import build_module
from workers.transforms.regroup import regroup
from workers.weights import check_weights, init_weights


def depthwise_network(multiplier: int) -> Network:
    nodes = (
        Node("image", Op.INPUT),
        Node("depthwise", Op.CONV, ("image",), 8 * multiplier, (3, 3), padding=(1, 1, 1, 1), groups=8),
        Node("pool", Op.GLOBAL_AVERAGE_POOL, ("depthwise",)),
        Node("flat", Op.FLATTEN, ("pool",)),
        Node("logits", Op.LINEAR, ("flat",), channels=3),
    )
    return Network("depthwise", InputContract((8, 5, 5), (0.0,) * 8, (1.0,) * 8), nodes, "logits")


@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("group_size", [1, 2, 4, 8])
def test_regrouping_changes_no_output(multiplier: int, group_size: int) -> None:
    network = depthwise_network(multiplier)
    applied = apply(network, Design.of({"group_size/depthwise": group_size}))
    weights = init_weights(network, seed=3)

    widened = regroup(applied, weights)

    check_weights(applied, widened)
    images = torch.randn(4, 8, 5, 5, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = build_module(network, weights).eval()(images)
        after = build_module(applied, widened).eval()(images)
    torch.testing.assert_close(after, before)


def test_the_new_weights_are_zero_but_for_the_channel_itself() -> None:
    network = depthwise_network(1)
    weights = init_weights(network, seed=3)

    widened = regroup(apply(network, Design.of({"group_size/depthwise": 4})), weights)["depthwise.weight"]

    assert widened.shape == (8, 4, 3, 3)
    assert np.count_nonzero(np.abs(widened).sum(axis=(2, 3))) == 8
    np.testing.assert_array_equal(widened[6, 2], weights["depthwise.weight"][6, 0])


def grouped_network(groups: int) -> Network:
    nodes = (
        Node("image", Op.INPUT),
        Node("grouped", Op.CONV, ("image",), 16, (3, 3), padding=(1, 1, 1, 1), groups=groups),
        Node("pool", Op.GLOBAL_AVERAGE_POOL, ("grouped",)),
        Node("flat", Op.FLATTEN, ("pool",)),
        Node("logits", Op.LINEAR, ("flat",), channels=3),
    )
    return Network("grouped", InputContract((8, 5, 5), (0.0,) * 8, (1.0,) * 8), nodes, "logits")


@pytest.mark.parametrize("group_size", [2, 4, 8])
def test_larger_groups_of_a_grouped_conv_change_no_output(group_size: int) -> None:
    network = grouped_network(4)
    applied = apply(network, Design.of({"group_size/grouped": group_size}))
    weights = init_weights(network, seed=3)

    widened = regroup(applied, weights)

    check_weights(applied, widened)
    images = torch.randn(4, 8, 5, 5, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = build_module(network, weights).eval()(images)
        after = build_module(applied, widened).eval()(images)
    torch.testing.assert_close(after, before)


@pytest.mark.parametrize(("old", "new"), [(2, 8), (2, 4), (4, 2), (8, 1), (4, 8)])
def test_a_filter_keeps_what_it_reads_of_its_new_group(old: int, new: int) -> None:
    """Checked against dense filters, in which each group is a block."""
    network, weights = grouped_network(old), init_weights(grouped_network(old), seed=3)
    moved = regroup(apply(network, Design.of({"groups/network": new})), weights)["grouped.weight"]

    dense = np.zeros((16, 8, 3, 3), np.float32)
    mask = np.zeros((16, 8, 1, 1), bool)
    for output in range(16):
        first, width = output // (16 // old) * (8 // old), 8 // old
        dense[output, first : first + width] = weights["grouped.weight"][output]
        mask[output, output // (16 // new) * (8 // new) :][: 8 // new] = True
    expected = dense[np.broadcast_to(mask, dense.shape)].reshape(moved.shape)
    np.testing.assert_array_equal(moved, expected)


@pytest.mark.parametrize("family", ["mobilenet_v1", "resnext_50"])
def test_a_whole_network_with_larger_groups_computes_the_same_in_torch_and_in_its_file(family: str) -> None:
    width = 0.1
    spec = NetworkSpec(family=family, width=width, input=(1, 16, 16), stem_stride=1)
    network = build_network(spec, 10, (0.5,), (0.5,))
    weights = random_weights(network)
    applied = apply(network, Design.of({"group_size/network": 4}))
    assert applied != network
    widened = regroup(applied, weights)
    image = np.random.default_rng(0).standard_normal((1, 1, 16, 16), dtype=np.float32)
    with torch.inference_mode():
        before = build_module(network, weights).eval()(torch.from_numpy(image)).numpy()
    after = open_session(write_onnx(*fold_batch_norms(applied, widened)), 1).run(None, {INPUT_NAME: image})[0]
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-4 * np.abs(before).max())
