"""Whether a file computes the same wherever it is run: as it is written, as runtimes optimise it, and as torch has it.

Differences are root mean squares over images and outputs, relative to the outputs themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import onnxruntime
import torch

from search_spaces.network import Network, Op, in_precision
from search_spaces.precision import FP32
from search_spaces.quantisation import is_quantised_layer
from workers.hardware.openvino_cpu import OpenVinoCpu, compile_file, executed_precisions
from workers.onnx_session import open_plain_session, open_session
from workers.onnx_writer import INPUT_NAME
from workers.recount import FileMismatchError
from workers.torch_network import build_module

IMAGES = 16

FLOAT_TOLERANCE = 1e-4
"""Of networks in floating point: sums in another order differ by some 1e-6."""

ROUNDINGS = 3.0
"""Of networks with integers: runtimes round at other places, which moves outputs by about as much as rounding
activations at all did. Measured: up to 1.6 times that, where OpenVINO keeps the sums of residual blocks in floating
point."""

MOST_IN_ONNX_RUNTIME = 0.9
"""Whatever the bits: outputs of nothing but zeros are off by 1. Measured of this runtime: at most .03."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far a runtime's outputs are from those of the file as it is written.

    Attributes:
        difference, tolerance: relative; None where the runtime did not run it.
        note: why it did not, or what it executes.
    """

    runtime: str
    difference: float | None
    tolerance: float | None
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compare_runtimes(
    network: Network, weights: Mapping[str, np.ndarray], model: bytes, images: np.ndarray, threads: int = 1
) -> list[Agreement]:
    """Run the file on some images in all ways that this machine has.

    Args:
        network, weights: what the file was written from, batch norms folded.
        model: the file, at a batch of 1.
        images: float32 (n, C, H, W), normalised.
        threads: that ONNX Runtime computes with.

    Raises:
        FileMismatchError: outputs differ by more than the tolerance, which for a network with integers is a multiple
            of how far rounding activations has moved them from floating point.
    """
    written = _run(open_plain_session(model, threads), images)
    in_torch = _run_in_torch(network, weights, images)
    tolerance, agreements = FLOAT_TOLERANCE, []
    if any(map(is_quantised_layer, network.compute_nodes())):
        tolerance = max(FLOAT_TOLERANCE, ROUNDINGS * _difference(in_torch, written))
    else:
        agreements.append(_compared(f"torch {torch.__version__}", in_torch, written, tolerance))
    name = f"ONNX Runtime {onnxruntime.__version__}"
    optimised = _run(open_session(model, threads), images)
    agreements.append(_compared(name, optimised, written, min(tolerance, MOST_IN_ONNX_RUNTIME)))
    return [*agreements, _in_openvino(network, model, images, written, tolerance)]


def _in_openvino(
    network: Network, model: bytes, images: np.ndarray, written: np.ndarray, tolerance: float
) -> Agreement:
    absent = OpenVinoCpu().why_absent()
    if absent:
        return Agreement("OpenVINO", None, None, absent)
    name = f"OpenVINO {version('openvino').partition('-')[0]}"
    try:
        compiled = compile_file(model)
        outputs = np.concatenate([compiled([image[None]])[compiled.outputs[0]] for image in images])
    except Exception as error:  # the runtime has no class of its own for its errors
        told = f"does not run the file: {' '.join(str(error).split())[:200]}"
        if any(node.op in (Op.OPAQUE, Op.POINTWISE) for node in network.nodes):
            return Agreement(name, None, None, f"{told}. The network has parts that are kept as they were imported.")
        raise FileMismatchError(f"{name} {told}") from error
    executed = ", ".join(f"{count} in {what}" for what, count in sorted(executed_precisions(compiled).items()))
    return _compared(name, outputs, written, tolerance, f"executes {executed}")


def _compared(runtime: str, outputs: np.ndarray, written: np.ndarray, tolerance: float, note: str = "") -> Agreement:
    difference = _difference(outputs, written)
    if not difference <= tolerance:
        raise FileMismatchError(
            f"in {runtime} the file's outputs differ by {difference:.1e} of their size from those of the file as it is "
            f"written; {tolerance:.1e} would be explained by rounding"
        )
    return Agreement(runtime, difference, tolerance, note)


def _run(session: onnxruntime.InferenceSession, images: np.ndarray) -> np.ndarray:
    return np.concatenate([session.run(None, {INPUT_NAME: image[None]})[0] for image in images])


def _run_in_torch(network: Network, weights: Mapping[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    module = build_module(in_precision(network, FP32), weights).eval()
    with torch.inference_mode():
        outputs: np.ndarray = module(torch.from_numpy(images)).numpy()
    return outputs


def _difference(outputs: np.ndarray, reference: np.ndarray) -> float:
    if outputs.shape != reference.shape:
        return float("inf")
    size = max(_root_mean_square(reference), float(np.finfo(np.float32).tiny))
    return _root_mean_square(outputs - reference) / size


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
