"""What a file puts out for images, and how good that is. The file is what ONNX Runtime executes, nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from search_spaces.extensions import look_up
from search_spaces.network import InputContract
from search_spaces.scores import Score, installed_scores
from workers.onnx_session import open_session
from workers.onnx_writer import INPUT_NAME, with_batch
from workers.splits import Split, normalise

BATCH = 32
"""Measured: larger batches leave the cache and are slower."""


def run_file(model: bytes, split: Split, contract: InputContract, threads: int = 1) -> np.ndarray:
    """What the file puts out for each image of a split: float32, (n, classes) or (n, 1), in the form of `Score`.

    Args:
        model: as `write_onnx` makes it, of any batch size.
        split: of at least one image.
        contract: the normalisation.
        threads: that ONNX Runtime computes with.

    Raises:
        FloatingPointError: an output is not finite.
    """
    outputs = predict(model, split.images, contract, threads)
    return two_columns(outputs) if split.labels.dtype.kind == "i" and outputs.shape[1] == 1 else outputs


def two_columns(outputs: np.ndarray) -> np.ndarray:
    """Of a network whose only output z is for the second of two classes: [0, z], whose softmax is its sigmoid."""
    return np.concatenate([np.zeros_like(outputs), outputs], axis=1)


def score_outputs(names: Sequence[str], outputs: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """The value of each score. Raises `NotInstalledError`."""
    return {name: _score_called(name).value(outputs, targets) for name in names}


def score_intervals(names: Sequence[str], outputs: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """The 95% interval of each score, as `<name>_low` and `<name>_high`."""
    bounds: dict[str, float] = {}
    for name in names:
        bounds[f"{name}_low"], bounds[f"{name}_high"] = _score_called(name).interval(outputs, targets)
    return bounds


def _score_called(name: str) -> Score:
    score: Score = look_up("metric", name, installed_scores())()
    return score


def predict(model: bytes, images: np.ndarray, contract: InputContract, threads: int = 1) -> np.ndarray:
    """The file's outputs for uint8 images (n, C, H, W): float32 (n, outputs).

    Raises:
        FloatingPointError: one is not finite.
    """
    session = open_session(with_batch(model, BATCH), threads)
    parts = []
    for start in range(0, len(images), BATCH):
        batch = normalise(images[start : start + BATCH], contract)
        missing = BATCH - len(batch)
        if missing:
            batch = np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), np.float32)])
        parts.append(session.run(None, {INPUT_NAME: batch})[0])
    outputs = np.concatenate(parts)[: len(images)]
    if not np.isfinite(outputs).all():
        raise FloatingPointError("the network's output has values that are not finite")
    return outputs
