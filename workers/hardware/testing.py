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
from workers.hardware.base import Anchor, Deployed, Device, MeasurementResult, Provenance
from workers.hardware.timing import Protocol
from workers.onnx_quantize import calibrated_tensors
from workers.onnx_writer import write_onnx
from workers.weights import init_weights

QUICK = Protocol(rounds=2, most_rounds=2, round_s=0.03, burst_s=0.001, samples_kept=20)


def small_network(precision: Precision, channels: int = 16) -> Network:
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
    return Network("small", InputContract((1, 8, 8), (0.5,), (0.5,)), nodes, "classifier")


def deploy(network: Network, batch: int = 1) -> Deployed:
    """A folded network with a file of random weights: what it takes does not depend on them."""
    ranges = dict.fromkeys(calibrated_tensors(network), (0.0, 4.0))
    return Deployed(network, write_onnx(network, init_weights(network, seed=0), ranges, batch))


class DeviceContract:
    """See `workers.hardware.base.Device`."""

    @abstractmethod
    def make_device(self) -> Device:
        """The device under test."""

    def precisions_tried(self, device: Device) -> tuple[str, ...]:
        """All that it lists; fewer where trying one takes seconds."""
        return device.capabilities().precisions

    def network_tried(self, precision: str) -> Network:
        """What is measured; larger where a counter sees nothing of so little."""
        return small_network(parse_precision(precision))

    @pytest.fixture
    def device(self) -> Device:
        return self.make_device()

    def test_every_device_metric_is_told_or_its_absence_explained(self, device: Device) -> None:
        capabilities = device.capabilities()
        told, absent = set(capabilities.metrics), set(capabilities.unavailable)
        assert told
        assert told | absent == DEVICE_METRICS
        assert not told & absent
        assert all(reason.strip() for reason in capabilities.unavailable.values())

    def test_capabilities_are_stable_and_survive_json(self, device: Device) -> None:
        capabilities = device.capabilities()
        assert self.make_device().capabilities() == capabilities
        assert type(capabilities).model_validate_json(capabilities.model_dump_json()) == capabilities
        assert capabilities.fingerprint

    def test_quantised_values_have_a_stated_form(self, device: Device) -> None:
        capabilities = device.capabilities()
        is_quantising = any(not parse_precision(text).is_float for text in capabilities.precisions)
        assert capabilities.precisions
        assert (capabilities.weights is not None) == (capabilities.activations is not None) == is_quantising
        assert capabilities.batch in capabilities.batches
        assert capabilities.threads in capabilities.thread_counts

    def test_every_listed_precision_is_executed(self, device: Device) -> None:
        capabilities = device.capabilities()
        anchor = Anchor(deploy(self.network_tried(capabilities.precisions[0])), latency_s=1e-3)
        for precision in self.precisions_tried(device):
            results = device.measure(deploy(self.network_tried(precision)), anchor, QUICK)
            assert set(results) == set(capabilities.metrics)
            for metric, result in results.items():
                _check(result, metric)
            latency = results.get(Metric.LATENCY_S)
            if latency is not None and not capabilities.simulated:
                assert latency.anchor_ratio is not None
                assert latency.median == pytest.approx(latency.anchor_ratio * anchor.latency_s)

    def test_a_network_by_itself_has_no_ratio(self, device: Device) -> None:
        precision = device.capabilities().precisions[0]
        for metric, result in device.measure(deploy(self.network_tried(precision)), None, QUICK).items():
            _check(result, metric)
            assert result.anchor_ratio is None
            assert {"threads", "batch", "rounds", "burst_s"} <= set(result.protocol)
            assert result.to_json()["provenance"] == str(result.provenance)

    def test_what_is_simulated_says_so(self, device: Device) -> None:
        precision = device.capabilities().precisions[0]
        for result in device.measure(deploy(self.network_tried(precision)), None, QUICK).values():
            is_simulated = result.provenance is Provenance.SIMULATED
            assert is_simulated == device.capabilities().simulated

    def test_measuring_leaves_the_process_as_it_was(self, device: Device) -> None:
        before = os.sched_getaffinity(0)
        device.measure(deploy(self.network_tried(device.capabilities().precisions[0])), None, QUICK)
        assert os.sched_getaffinity(0) == before

    def test_a_network_against_itself_has_its_anchors_latency(self, device: Device) -> None:
        channels = 16 if device.capabilities().simulated else 64  # a clock needs something to time
        deployed = deploy(small_network(parse_precision(device.capabilities().precisions[0]), channels))
        anchor_s = device.measure(deployed, None, QUICK)[Metric.LATENCY_S].median
        repeats = [
            device.measure(deployed, Anchor(deployed, anchor_s), QUICK)[Metric.LATENCY_S].median for _ in range(3)
        ]
        # Repeats within 2%; the tolerance leaves room for a machine that is busy with other things.
        assert np.median(repeats) == pytest.approx(anchor_s, rel=0.2)


def _check(result: MeasurementResult, metric: Metric) -> None:
    assert result.metric is metric
    assert 0 < result.lower_quartile <= result.median <= result.upper_quartile < math.inf
    assert 0 < len(result.samples) <= min(QUICK.samples_kept, result.count)
    assert min(result.samples) <= result.median <= max(result.samples)
