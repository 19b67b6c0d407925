"""Anchors are measured once, to one scale, and chosen by what a candidate mostly computes in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

from search_spaces.network import InputContract, Network, Node, Op
from search_spaces.precision import FP32, W8A8
from workers.anchor import get_anchor, get_anchor_in, main_precision
from workers.base import Base
from workers.hardware.onnxruntime_cpu import OnnxRuntimeCpu
from workers.weights import init_weights


def make_base() -> Base:
    nodes = (
        Node("input", Op.INPUT),
        Node("large", Op.CONV, ("input",), 16, (3, 3), (1, 1), (1, 1, 1, 1)),
        Node("large.norm", Op.BATCH_NORM, ("large",)),
        Node("large.relu", Op.RELU, ("large.norm",)),
        Node("pool", Op.GLOBAL_AVERAGE_POOL, ("large.relu",)),
        Node("flatten", Op.FLATTEN, ("pool",)),
        Node("small", Op.LINEAR, ("flatten",), 4, bias=True),
    )
    network = Network("tiny", InputContract((1, 8, 8), (0.5,), (0.5,)), nodes, "small")
    return Base("0" * 64, network, init_weights(network, seed=0), {})


def changed(network: Network, **precisions) -> Network:
    nodes = network.by_name()
    return network.with_nodes({name: replace(nodes[name], precision=value) for name, value in precisions.items()})


def test_the_layers_with_most_work_decide_the_precision():
    network = make_base().network
    assert main_precision(network) == FP32
    assert main_precision(changed(network, small=W8A8)) == FP32
    assert main_precision(changed(network, large=W8A8)) == W8A8


def test_an_integer_anchor_is_measured_beside_the_one_in_floating_point(tmp_path):
    base, device = make_base(), OnnxRuntimeCpu()
    images = np.random.default_rng(0).standard_normal((4, 1, 8, 8), dtype=np.float32)
    floating, measured = get_anchor(base, device, tmp_path)
    integer = get_anchor_in(base, W8A8, images, device, tmp_path)
    operators = {node.op_type for node in onnx.ModelProto.FromString(integer.deployed.model).graph.node}
    assert "QuantizeLinear" in operators
    assert get_anchor_in(base, FP32, images, device, tmp_path) == floating
    assert get_anchor_in(base, W8A8, images, device, tmp_path) == integer  # not measured again, so exactly
    assert measured["latency_s"]["median"] == floating.latency_s
    assert len(list((tmp_path / "anchors").glob("*.json"))) == 2
    # Both are some microseconds; told to one scale they are of one order.
    assert integer.latency_s == pytest.approx(floating.latency_s, rel=0.9)
