"""`local-cpu` keeps the Device contract and its protocol."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from search_spaces.objectives import Metric
from search_spaces.precision import FP32, W8A8, Precision
from workers.hardware.base import Anchor, Deployed, Provenance, summarise
from workers.hardware.onnxruntime_cpu import OnnxRuntimeCpu
from workers.hardware.testing import QUICK, DeviceContract, deploy, small_network
from workers.hardware.timing import Protocol
from workers.onnx_session import PrecisionMismatch


class TestOnnxRuntimeCpu(DeviceContract):
    def make_device(self) -> OnnxRuntimeCpu:
        return OnnxRuntimeCpu()


def test_what_makes_figures_comparable_is_told():
    capabilities = OnnxRuntimeCpu().capabilities()
    assert capabilities.fingerprint.keys() >= {"processor", "instruction_sets", "runtime", "threads"}
    assert not capabilities.simulated


def test_a_larger_network_is_slower_than_its_anchor():
    anchor = Anchor(deploy(small_network(FP32, channels=16)), latency_s=1e-3)
    result = OnnxRuntimeCpu().measure(deploy(small_network(FP32, channels=512)), anchor, QUICK)[Metric.LATENCY_S]
    assert result.anchor_ratio is not None
    assert result.anchor_ratio > 2
    assert result.median == pytest.approx(result.anchor_ratio * 1e-3)
    assert result.provenance is Provenance.MEASURED


def test_a_file_that_does_not_run_leaves_the_process_as_it_was():
    cores, anchor = os.sched_getaffinity(0), Anchor(deploy(small_network(FP32)), 1e-3)
    with pytest.raises(Exception, match=r"(?i)protobuf|model"):
        OnnxRuntimeCpu().measure(Deployed(small_network(FP32), b"no model"), anchor, QUICK)
    assert os.sched_getaffinity(0) == cores
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("declared", "deployed", "told"),
    [(W8A8, FP32, "declared w8a8, executes as (Fused)?Conv"), (FP32, W8A8, "declared fp32, executes as QLinearConv")],
)
def test_another_precision_than_declared_is_no_measurement(declared: Precision, deployed: Precision, told: str):
    """Whoever asks for it, a profile as well as a search."""
    model = deploy(small_network(deployed)).model
    with pytest.raises(PrecisionMismatch, match=told):
        OnnxRuntimeCpu().measure(Deployed(small_network(declared), model), None, QUICK)


def test_a_summary_is_of_all_values_and_keeps_an_even_selection():
    protocol = Protocol(samples_kept=5)
    values = np.arange(1.0, 102.0)
    result = summarise(Metric.LATENCY_S, values, None, protocol, {"runtime": "a"}, Provenance.SIMULATED)
    assert (result.lower_quartile, result.median, result.upper_quartile) == (26.0, 51.0, 76.0)
    assert result.samples == (1.0, 26.0, 51.0, 76.0, 101.0)
    assert result.count == 101
    assert (result.protocol["threads"], result.protocol["runtime"]) == (1, "a")
    assert result.to_json()["metric"] == "latency_s"


def test_a_batch_takes_longer_than_an_image_and_is_a_protocol_of_its_own():
    batches = (1, 16)
    assert set(batches) <= set(OnnxRuntimeCpu().capabilities().batches)
    one, many = (
        OnnxRuntimeCpu().measure(deploy(small_network(FP32, 64), batch), None, replace(QUICK, batch=batch))
        for batch in batches
    )
    assert many[Metric.LATENCY_S].median > 3 * one[Metric.LATENCY_S].median
    assert many[Metric.LATENCY_S].protocol["batch"] == 16


def test_measuring_needs_no_torch():
    code = "import sys, workers.hardware; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
