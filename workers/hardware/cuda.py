"""The first CUDA device of this machine, as torch, ONNX Runtime and zeus read it. Loads torch.

ONNX Runtime executes the file where it can use the device, torch the network itself otherwise: as one CUDA graph, since
the kernels of a small network take less time than starting them one by one from Python does. Not through TensorRT,
which rounds to TF32 and has no option against it in ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper

from search_spaces.network import Network
from workers.hardware.base import Deployed
from workers.hardware.energy import EnergyMeter, Window
from workers.hardware.timing import Protocol
from workers.torch_network import build_module
from workers.weights import Weights, weight_shapes

_INDEX = 0
_PROVIDER = "CUDAExecutionProvider"
_KEY = "espalier"


def why_unusable() -> str:
    """Why torch cannot use a CUDA device here, and the remedy; empty where it can."""
    if torch.version.cuda is None:
        return "this torch is built without CUDA: install a build with it"
    if not torch.cuda.is_available():
        return "torch finds no CUDA device that it can use: see nvidia-smi, and whether the driver fits torch's CUDA"
    return ""


class ThisMachine:
    """See `workers.hardware.torch_cuda.Cuda`."""

    @cached_property
    def chip(self) -> str:
        return torch.cuda.get_device_name(_INDEX)

    @cached_property
    def fingerprint(self) -> Mapping[str, str]:
        return {
            "processor": self.chip,
            "driver": _driver(),
            "runtime": self._runtime,
            "cuda": str(torch.version.cuda),
            "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
        }

    @cached_property
    def _has_provider(self) -> bool:
        """Whether ONNX Runtime can use the device."""
        return _PROVIDER in onnxruntime.get_available_providers()

    @cached_property
    def _runtime(self) -> str:
        if self._has_provider:
            return f"onnxruntime {onnxruntime.__version__} {_PROVIDER}"
        return f"torch {torch.__version__}, one CUDA graph"

    def why_no_energy(self) -> str:
        if find_spec("zeus") is None:
            return "the energy of graphics processors is read by zeus: pip install 'espalier[energy]'"
        return ""

    def why_no_memory(self) -> str:
        return "ONNX Runtime does not tell what one session has held at most" if self._has_provider else ""

    def open(self, deployed: Deployed, protocol: Protocol) -> Callable[[], object]:
        images = _images(deployed, protocol)
        if self._has_provider:
            return _open_session(deployed.model, images)
        return _captured(open_module(deployed, images, torch.device("cuda", _INDEX)))

    def elapsed_s(self, launch: Callable[[], object]) -> float:
        before, after = _event(), _event()
        before.record()
        launch()
        after.record()
        after.synchronize()
        return float(before.elapsed_time(after)) / 1e3  # it tells milliseconds

    def peak_bytes(self, deployed: Deployed, protocol: Protocol) -> int:
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated(_INDEX)
        # Kernel by kernel: what a graph's replay holds was allocated once and for all when it was captured.
        launch = open_module(deployed, _images(deployed, protocol), torch.device("cuda", _INDEX))
        with real_floats():
            launch()  # the first allocates what the libraries keep
            torch.cuda.synchronize(_INDEX)
            torch.cuda.reset_peak_memory_stats(_INDEX)
            launch()
            torch.cuda.synchronize(_INDEX)
        return torch.cuda.max_memory_allocated(_INDEX) - before

    def meter(self) -> EnergyMeter:
        return self._meter

    @cached_property
    def _meter(self) -> EnergyMeter:
        from zeus.monitor import ZeusMonitor  # optional, and seconds to load

        return CudaMeter(ZeusMonitor(gpu_indices=[_INDEX], cpu_indices=[]))


class CudaMeter:
    """One device's energy by zeus: its counter from Volta on, its power polled and integrated before."""

    def __init__(self, monitor: Any) -> None:
        self._monitor = monitor

    @property
    def source(self) -> str:
        has_counter = self._monitor.gpus.supports_get_total_energy_consumption(_INDEX)
        return f"NVML by zeus: {'the energy counter' if has_counter else 'power, polled and integrated'}"

    def begin(self) -> None:
        self._monitor.begin_window(_KEY, restart=True)  # waits for what was started before

    def end(self) -> Window:
        found = self._monitor.end_window(_KEY)
        return Window(found.time, found.gpu_energy[_INDEX])


def _images(deployed: Deployed, protocol: Protocol) -> np.ndarray:
    shape = (protocol.batch, *deployed.network.input.shape)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def open_module(deployed: Deployed, images: np.ndarray, device: torch.device) -> Callable[[], torch.Tensor]:
    """The network by torch, in eager mode."""
    module = build_module(deployed.network, weights_of(deployed.network, deployed.model)).eval().to(device)
    data = torch.from_numpy(images).to(device, memory_format=torch.channels_last)

    def launch() -> torch.Tensor:
        with torch.inference_mode():
            outputs: torch.Tensor = module(data)
            return outputs

    return launch


_RUNS_BEFORE_CAPTURE = 3
"""In which libraries choose their algorithms and take their workspaces."""


@dataclass(frozen=True)
class _Graph:
    """Kernels that are started all at once.

    Attributes:
        kernels: what was captured. A graph reads the weights where they lay, and does not keep them there.
    """

    graph: torch.cuda.CUDAGraph
    outputs: torch.Tensor
    kernels: Callable[[], torch.Tensor]

    def __call__(self) -> torch.Tensor:
        self.graph.replay()
        return self.outputs


def _captured(launch: Callable[[], torch.Tensor]) -> _Graph:
    """The same kernels on the same data."""
    graph, aside = torch.cuda.CUDAGraph(), torch.cuda.Stream(_INDEX)  # type: ignore[no-untyped-call]
    with real_floats():
        aside.wait_stream(torch.cuda.current_stream(_INDEX))
        with torch.cuda.stream(aside):
            for _ in range(_RUNS_BEFORE_CAPTURE):
                launch()
        torch.cuda.current_stream(_INDEX).wait_stream(aside)
        with torch.cuda.graph(graph):
            outputs = launch()

    return _Graph(graph, outputs, launch)


@contextmanager
def real_floats() -> Iterator[None]:
    """Torch's convolutions and products in fp32 proper: by default some are rounded to TF32 first."""
    switches: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [one.allow_tf32 for one in switches]
    try:
        for one in switches:
            one.allow_tf32 = False
        yield
    finally:
        for one, was in zip(switches, before, strict=True):
            one.allow_tf32 = was


def _event() -> Any:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def weights_of(network: Network, model: bytes) -> Weights:
    """A floating-point network's weights, from the file that was written of it."""
    wanted = weight_shapes(network)
    constants = onnx.ModelProto.FromString(model).graph.initializer
    return {one.name: numpy_helper.to_array(one) for one in constants if one.name in wanted}


def _open_session(model: bytes, images: np.ndarray) -> Callable[[], object]:
    """The file by ONNX Runtime, on torch's stream, so that torch's events are before and after it."""
    stream = str(torch.cuda.current_stream(_INDEX).cuda_stream)
    options = {"device_id": str(_INDEX), "user_compute_stream": stream, "use_tf32": "0"}
    session = onnxruntime.InferenceSession(model, providers=[(_PROVIDER, options)])
    binding = session.io_binding()
    data = onnxruntime.OrtValue.ortvalue_from_numpy(images, "cuda", _INDEX)
    binding.bind_ortvalue_input(session.get_inputs()[0].name, data)
    binding.bind_output(session.get_outputs()[0].name, "cuda", _INDEX)
    return lambda: session.run_with_iobinding(binding)


def _driver() -> str:
    try:
        return Path("/proc/driver/nvidia/version").read_text().splitlines()[0].strip()
    except (OSError, IndexError):
        return "not told"
