"""What every Device must do, as tests. Subclass it in a test module and say which device.

class TestMyDevice(DeviceContract):
    def make_device(self) -> Device:
        return MyDevice()
"""

from __future__ import annotations

import math
import os
from abc import abstractmethod

import numpy as np
import pytest

from search_spaces.network import InputContract, Network, Node, Op
from search_spaces.objectives import DEVICE_METRICS, Metric
from search_spaces.precision import Precision, parse_precision
from workers.hardware.base import Anchor, Device
from workers.hardware.timing import Protocol
from workers.onnx_quantize import calibrated_tensors
from workers.onnx_writer import write_onnx
from workers.weights import init_weights

QUICK = Protocol(rounds=2, most_rounds=2, round_s=0.03, burst_s=0.001, samples_kept=20)


def small_model(precision: Precision, channels: int = 16) -> bytes:
    """Two convs and a classifier in one precision, for 8x8 images of one channel."""
    nodes = (
        Node("input", Op.INPUT),
        Node("first", Op.CONV, ("input",), channels, (3, 3), (1, 1), (1, 1, 1, 1), bias=True, precision=precision),
        Node("first.relu", Op.RELU, ("first",)),
        Node("second", Op.CONV, ("first.relu",), channels, bias=True, precision=precision),
        Node("second.relu", Op.RELU, ("second",)),
        Node("pool", Op.GLOBAL_AVERAGE_POOL, ("second.relu",)),
        Node("flatten", Op.FLATTEN, ("pool",)),
        Node("classifier", Op.LINEAR, ("flatten",), channels=10, bias=True, precision=precision),
    )
    network = Network("small", InputContract((1, 8, 8), (0.5,), (0.5,)), nodes, "classifier")
    ranges = dict.fromkeys(calibrated_tensors(network), (0.0, 4.0))
    return write_onnx(network, init_weights(network, seed=0), ranges)


class DeviceContract:
    """See `workers.hardware.base.Device`."""

    @abstractmethod
    def make_device(self) -> Device:
        """The device under test."""

    @pytest.fixture
    def device(self) -> Device:
        return self.make_device()

    def test_every_device_metric_is_told_or_its_absence_explained(self, device: Device) -> None:
        capabilities = device.capabilities()
        told, absent = set(capabilities.metrics), set(capabilities.unavailable)
        assert told | absent == DEVICE_METRICS
        assert not told & absent
        assert all(reason.strip() for reason in capabilities.unavailable.values())

    def test_capabilities_are_stable_and_survive_json(self, device: Device) -> None:
        capabilities = device.capabilities()
        assert self.make_device().capabilities() == capabilities
        assert type(capabilities).model_validate_json(capabilities.model_dump_json()) == capabilities
        assert capabilities.fingerprint

    def test_every_listed_precision_is_executed(self, device: Device) -> None:
        anchor = Anchor(small_model(parse_precision("fp32")), latency_s=1e-3)
        for precision in device.capabilities().precisions:
            result = device.measure(small_model(parse_precision(precision)), anchor, QUICK)
            assert result.metric is Metric.LATENCY_S
            assert 0 < result.lower_quartile <= result.median <= result.upper_quartile < math.inf
            assert result.anchor_ratio is not None
            assert result.median == pytest.approx(result.anchor_ratio * anchor.latency_s)

    def test_raw_samples_and_the_protocol_are_kept(self, device: Device) -> None:
        result = device.measure_anchor(small_model(parse_precision("fp32")), QUICK)
        assert 0 < len(result.samples) <= min(QUICK.samples_kept, result.count)
        assert min(result.samples) <= result.median <= max(result.samples)
        assert {"threads", "batch", "rounds", "burst_s"} <= set(result.protocol)
        assert result.anchor_ratio is None
        assert result.to_json()["provenance"] == str(result.provenance)

    def test_measuring_leaves_the_process_as_it_was(self, device: Device) -> None:
        before = os.sched_getaffinity(0)
        device.measure_anchor(small_model(parse_precision("fp32")), QUICK)
        assert os.sched_getaffinity(0) == before

    def test_a_file_against_itself_has_ratio_one(self, device: Device) -> None:
        model = small_model(parse_precision("fp32"), channels=64)
        ratios = [device.measure(model, Anchor(model, 1e-3), QUICK).anchor_ratio for _ in range(3)]
        # Repeats within 2%; the tolerance leaves room for a machine that is busy with other things.
        assert np.median(np.array(ratios, float)) == pytest.approx(1.0, rel=0.2)
