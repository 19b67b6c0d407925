"""`torch-cuda` on a recording of what a graphics processor's events and counters told, and its absence here.

Nothing here needs such a processor; `test_on_cuda` runs on one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from search_spaces.costs import macs
from search_spaces.objectives import Metric
from search_spaces.precision import FP32
from workers.hardware import absent_devices, cuda, torch_cuda
from workers.hardware.base import Anchor, Deployed
from workers.hardware.cuda import CudaMeter, ThisMachine, open_module, real_floats, weights_of
from workers.hardware.energy import EnergyProtocol, EnergyUnreadableError
from workers.hardware.testing import QUICK, DeviceContract, deploy, small_network
from workers.hardware.timing import Protocol
from workers.hardware.torch_cuda import TorchCuda
from workers.onnx_session import open_session
from workers.weights import init_weights

IDLE_W, MAC_J, MAC_S = 50.0, 1e-9, 1e-8
QUICK_ENERGY = EnergyProtocol(windows=3, window_s=0.004, idle_s=0.001, warm_runs=1)
JITTER = (1.0, 1.004, 1.002, 1.01, 1.001)


@dataclass
class Monitor:
    """What is used of zeus's monitor, on the recording's own counter and clock."""

    recording: Recording
    has_counter: bool = True
    _began: tuple[float, float] = (0.0, 0.0)

    @property
    def gpus(self) -> Monitor:
        return self

    def supports_get_total_energy_consumption(self, index: int) -> bool:
        return self.has_counter

    def begin_window(self, key: str, restart: bool) -> None:
        self._began = (self.recording.now, self.recording.joules)

    def end_window(self, key: str) -> Any:
        self.recording.idle(0.001)
        seconds, joules = self.recording.now - self._began[0], self.recording.joules - self._began[1]
        return _Told(seconds, {0: joules})


@dataclass(frozen=True)
class _Told:
    time: float
    gpu_energy: dict[int, float]


@dataclass
class Recording:
    """A chip that takes MAC_S and MAC_J for each multiplication, with the jitter of a real one."""

    has_counter: bool = True
    no_energy: str = ""
    no_memory: str = ""
    chip: str = "a chip"
    now: float = 0.0
    joules: float = 0.0
    opened: list[Protocol] = field(default_factory=list)
    _jitter: Any = field(default_factory=lambda: cycle(JITTER))
    _launched: int = 0

    @property
    def fingerprint(self) -> dict[str, str]:
        return {"processor": self.chip, "driver": "1", "runtime": "a recording"}

    def why_no_energy(self) -> str:
        return self.no_energy

    def why_no_memory(self) -> str:
        return self.no_memory

    def open(self, deployed: Deployed, protocol: Protocol) -> Callable[[], None]:
        self.opened.append(protocol)
        work = macs(deployed.network) * protocol.batch

        def launch() -> None:
            self._launched = work

        return launch

    def elapsed_s(self, launch: Callable[[], object]) -> float:
        launch()
        seconds = self._launched * MAC_S * next(self._jitter)
        self.joules += self._launched * MAC_J
        self.idle(seconds)
        return seconds

    def idle(self, seconds: float) -> None:
        self.joules += IDLE_W * seconds
        self.now += seconds

    def peak_bytes(self, deployed: Deployed, protocol: Protocol) -> int:
        self.open(deployed, protocol)()
        return self._launched

    def meter(self) -> CudaMeter:
        return CudaMeter(Monitor(self, self.has_counter))


def device(**changes: Any) -> TorchCuda:
    return TorchCuda(lambda: Recording(**changes), QUICK_ENERGY)


class TestTorchCuda(DeviceContract):
    def make_device(self) -> TorchCuda:
        return device()


def test_latency_is_the_devices_own_time_and_not_the_hosts():
    network = small_network(FP32)
    found = device().measure(deploy(network), None, QUICK)[Metric.LATENCY_S]
    assert found.median == pytest.approx(macs(network) * MAC_S, rel=0.01)
    assert found.protocol["clock"] == "CUDA events"
    assert found.protocol["driver"] == "1"


def test_beside_an_anchor_the_ratio_is_of_the_work():
    anchor = Anchor(deploy(small_network(FP32, 16)), 1e-3)
    candidate = small_network(FP32, 64)
    found = device().measure(deploy(candidate), anchor, QUICK)[Metric.LATENCY_S]
    expected = macs(candidate) / macs(anchor.deployed.network)
    assert found.anchor_ratio == pytest.approx(expected, rel=0.01)
    assert found.evidence == {"anchor_latency_s": 1e-3}


def test_figures_with_and_without_an_anchor_were_taken_by_one_protocol():
    deployed = deploy(small_network(FP32))
    anchor = Anchor(deploy(small_network(FP32, 16)), 1e-3)
    alone, beside = (device().measure(deployed, one, QUICK)[Metric.LATENCY_S] for one in (None, anchor))
    assert alone.protocol == beside.protocol


def test_a_batch_is_opened_as_one():
    recording = Recording()
    found = TorchCuda(lambda: recording, QUICK_ENERGY).measure(
        deploy(small_network(FP32), 8), None, replace(QUICK, batch=8)
    )
    assert {protocol.batch for protocol in recording.opened} == {8}
    assert found[Metric.LATENCY_S].protocol["batch"] == 8


@pytest.mark.parametrize(("has_counter", "source"), [(True, "the energy counter"), (False, "polled and integrated")])
def test_energy_is_net_of_idling_and_names_its_source(has_counter: bool, source: str):
    network = small_network(FP32)
    found = device(has_counter=has_counter).measure(deploy(network), None, QUICK)[Metric.ENERGY_J]
    assert found.median == pytest.approx(macs(network) * MAC_J, rel=1e-6)
    assert found.evidence["idle_w"] == pytest.approx(IDLE_W)
    assert found.evidence["gross_j"] > found.median
    assert source in found.protocol["source"]


def test_a_counter_that_stands_still_is_no_measurement(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Monitor, "end_window", lambda self, key: _Told(1.0, {0: 0.0}))
    with pytest.raises(EnergyUnreadableError, match="NVML by zeus"):
        device().measure(deploy(small_network(FP32)), None, QUICK)


def test_what_cannot_be_read_is_absent_with_the_reason():
    told = device(no_energy="no zeus", no_memory="no figure")
    assert told.capabilities().unavailable == {Metric.ENERGY_J: "no zeus", Metric.MEMORY_BYTES: "no figure"}
    assert set(told.measure(deploy(small_network(FP32)), None, QUICK)) == {Metric.LATENCY_S}


def test_weights_come_back_from_the_file_and_compute_the_same():
    network = small_network(FP32)
    deployed = deploy(network)
    weights = weights_of(network, deployed.model)
    assert {name: array.tobytes() for name, array in weights.items()} == {
        name: array.tobytes() for name, array in init_weights(network, seed=0).items()
    }
    images = np.random.default_rng(0).standard_normal((1, *network.input.shape), dtype=np.float32)
    found = open_module(deployed, images, torch.device("cpu"))()
    (expected,) = open_session(deployed.model).run(None, {"image": images})
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_floats_are_not_rounded_to_the_bits_of_tensor_cores(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    with real_floats():
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.allow_tf32


def test_onnx_runtime_neither_rounds_floats_nor_takes_tensorrt_which_would(monkeypatch: pytest.MonkeyPatch):
    """On a build with both, as far as that can be shown without a device: what a session is asked for."""
    asked: list[Any] = []

    class AskedError(Exception):
        pass

    def refuse(model: bytes, providers: list[Any]) -> None:
        asked.extend(providers)
        raise AskedError

    available = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(cuda.onnxruntime, "get_available_providers", lambda: available)
    monkeypatch.setattr(cuda.onnxruntime, "InferenceSession", refuse)
    monkeypatch.setattr(cuda.torch.cuda, "current_stream", lambda index: SimpleNamespace(cuda_stream=7))
    with pytest.raises(AskedError):
        ThisMachine().open(deploy(small_network(FP32)), QUICK)
    assert asked == [
        ("CUDAExecutionProvider", {"device_id": "0", "user_compute_stream": "7", "use_tf32": "0"}),
    ]


class TestAbsence:
    @pytest.fixture
    def driver(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        path = tmp_path / "version"
        monkeypatch.setattr(torch_cuda, "DRIVER", (path,))
        return path

    def test_no_driver(self, driver: Path) -> None:
        assert "no CUDA device" in absent_devices()["torch-cuda"]

    def test_a_torch_without_cuda(self, driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        driver.touch()
        monkeypatch.setattr(cuda.torch.version, "cuda", None)
        assert "built without CUDA" in absent_devices()["torch-cuda"]

    def test_a_device_that_cannot_be_used(self, driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        driver.touch()
        monkeypatch.setattr(cuda.torch.version, "cuda", "13.0")
        monkeypatch.setattr(cuda.torch.cuda, "is_available", lambda: False)
        assert "nvidia-smi" in absent_devices()["torch-cuda"]

    def test_no_torch(self, driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        driver.touch()
        monkeypatch.setattr(torch_cuda, "find_spec", lambda _: None)
        assert "pip install 'espalier[worker]'" in absent_devices()["torch-cuda"]
