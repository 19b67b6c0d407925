"""Larger groups start as exactly what the depthwise layer computed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from search_spaces.apply import apply
from search_spaces.design import Design
from search_spaces.network import InputContract, Network, Node, Op
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
