"""Proof that what was imported computes what the file computes: both are run on the same random images."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from search_spaces.network import InputContract
from workers.importing.faults import refuse
from workers.importing.memory import return_freed_memory
from workers.importing.onnx_import import Imported
from workers.importing.reading import Source
from workers.onnx_session import open_lean_session
from workers.onnx_writer import INPUT_NAME, build_model
from workers.splits import normalise
from workers.torch_network import build_module

IMAGES = 4
TOLERANCE = 1e-4
"""Of the largest value that the file puts out."""


@dataclass(frozen=True, slots=True)
class Parity:
    """How far the imported network is from its file, relative to the largest output: in a file of ours and in torch."""

    images: int
    in_onnx_runtime: float
    in_torch: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def run_source(source: Source, path: Path, images: np.ndarray) -> np.ndarray:
    """What the file itself puts out for normalised images, (n, outputs); one at a time, as its batch may be fixed.

    Raises:
        ImportRefusedError: ONNX Runtime does not run it.
    """
    try:
        session = open_lean_session(path)
        return np.concatenate([_run(session, source, image) for image in images])
    except Exception as error:  # the runtime has no class of its own for its errors
        raise refuse(f"ONNX Runtime does not run the file: {' '.join(str(error).split())[:300]}") from None


def random_images(contract: InputContract) -> np.ndarray:
    """Normalised images of random pixels, float32 (IMAGES, C, H, W)."""
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, *contract.shape), dtype=np.uint8)
    return normalise(pixels, contract)


def check_parity(imported: Imported, images: np.ndarray, expected: np.ndarray) -> Parity:
    """Compare with what the file puts out for the same images.

    Raises:
        ImportRefusedError: they differ by more than roundings.
    """
    in_runtime = _run_as_file(imported, images)
    return_freed_memory()
    in_torch = _run_in_torch(imported, images)
    scale = 1.0 if imported.left_out == "Sigmoid" else float(np.abs(expected).max())  # a sigmoid may be next to 0
    differences = [_difference(_as_the_file(imported, found), expected, scale) for found in (in_runtime, in_torch)]
    if not max(differences) <= TOLERANCE:
        raise refuse(
            f"the network as imported differs from the file by {max(differences):.1e} of its largest output; "
            "this is a fault of Espalier: please report it, with the file"
        )
    return Parity(len(images), *differences)


def _run_as_file(imported: Imported, images: np.ndarray) -> np.ndarray:
    with tempfile.TemporaryDirectory(prefix="espalier-") as folder:
        path = Path(folder) / "imported.onnx"
        # Weights in a file beside it: a whole file in memory would take more than an import may.
        model = build_model(imported.network, imported.weights)
        onnx.save_model(model, path, save_as_external_data=True, location="weights", size_threshold=1024)
        del model
        return_freed_memory()
        session = open_lean_session(path)
        return np.concatenate([session.run(None, {INPUT_NAME: image[None]})[0] for image in images])


def _run_in_torch(imported: Imported, images: np.ndarray) -> np.ndarray:
    module = build_module(imported.network, imported.weights).eval()
    with torch.inference_mode():
        return np.concatenate([module(torch.from_numpy(image[None])).numpy() for image in images])


def _run(session: onnxruntime.InferenceSession, source: Source, image: np.ndarray) -> np.ndarray:
    image = image.transpose(1, 2, 0) if source.is_channels_last else image
    (output,) = session.run([source.output_name], {source.input_name: image[None]})
    flat: np.ndarray = np.asarray(output).reshape(1, -1)
    return flat


def _as_the_file(imported: Imported, outputs: np.ndarray) -> np.ndarray:
    """Our outputs with what was left out at the end."""
    if not imported.left_out:
        return outputs
    if imported.left_out == "Sigmoid":
        shares: np.ndarray = np.exp(-np.logaddexp(0, -outputs))  # the sigmoid, without overflow
        return shares
    shifted = outputs - outputs.max(axis=1, keepdims=True)
    logarithm: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logarithm if imported.left_out == "LogSoftmax" else np.exp(logarithm)


def _difference(found: np.ndarray, expected: np.ndarray, scale: float) -> float:
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - expected).max() / max(scale, 1e-9))
