"""How many images a file gets right, with an interval. The file is what ONNX Runtime executes, nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from search_spaces.network import InputContract
from workers.interval import wilson_interval
from workers.onnx_session import open_session
from workers.onnx_writer import INPUT_NAME, with_batch
from workers.splits import normalise

BATCH = 32
"""Measured: larger batches leave the cache and are slower."""


@dataclass(frozen=True, slots=True)
class Score:
    """`correct` of `total` images."""

    correct: int
    total: int

    @property
    def accuracy(self) -> float:
        return self.correct / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of the accuracy."""
        return wilson_interval(self.accuracy, self.total)


def score(model: bytes, images: np.ndarray, labels: np.ndarray, contract: InputContract, threads: int = 1) -> Score:
    """Run the file on every image and count where the largest logit is the label.

    Args:
        model: as `write_onnx` makes it, of any batch size.
        images: uint8 (n, C, H, W), n >= 1.
        labels: int64 (n).
        contract: the normalisation.
        threads: that ONNX Runtime computes with.

    Raises:
        FloatingPointError: a logit is not finite.
    """
    predicted = predict(model, images, contract, threads).argmax(axis=1)
    return Score(int((predicted == labels).sum()), len(labels))


def predict(model: bytes, images: np.ndarray, contract: InputContract, threads: int = 1) -> np.ndarray:
    """Logits, float32 (n, classes).

    Raises:
        FloatingPointError: a logit is not finite.
    """
    session = open_session(with_batch(model, BATCH), threads)
    parts = []
    for start in range(0, len(images), BATCH):
        batch = normalise(images[start : start + BATCH], contract)
        missing = BATCH - len(batch)
        if missing:
            batch = np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), np.float32)])
        parts.append(session.run(None, {INPUT_NAME: batch})[0])
    logits = np.concatenate(parts)[: len(images)]
    if not np.isfinite(logits).all():
        raise FloatingPointError("the network's output has values that are not finite")
    return logits
