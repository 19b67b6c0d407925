"""Scores against closed forms, and against a file whose right answers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from search_spaces.network import InputContract, Network, Node, Op
from search_spaces.scores import wilson_interval
from workers.onnx_writer import write_onnx
from workers.score import BATCH, predict, run_file, score_outputs
from workers.splits import Split

CONTRACT = InputContract((2, 1, 1), (0.5, 0.5), (0.5, 0.5))
NODES = (
    Node("input", Op.INPUT),
    Node("flatten", Op.FLATTEN, ("input",)),
    Node("classifier", Op.LINEAR, ("flatten",), channels=2),
)
IDENTITY = write_onnx(
    Network("brighter", CONTRACT, NODES, "classifier"), {"classifier.weight": np.eye(2, dtype=np.float32)}
)
"""Says which of an image's two pixels is brighter."""


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        # Newcombe (1998), table I, method 3: 81/263, 15/148, 0/20, 1/29.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_is_wilsons(correct, total, low, high):
    assert wilson_interval(correct / total, total) == pytest.approx((low, high), abs=5e-5)


def test_the_interval_is_symmetric_and_holds_the_accuracy():
    for correct in range(0, 41, 5):
        low, high = wilson_interval(correct / 40, 40)
        mirrored = wilson_interval((40 - correct) / 40, 40)
        assert 0 <= low <= correct / 40 <= high <= 1
        assert mirrored == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize("count", [1, BATCH - 1, BATCH, BATCH + 1, 5 * BATCH + 3])
def test_every_image_is_counted_once_whatever_the_batch(count):
    images = np.random.default_rng(0).integers(0, 256, (count, 2, 1, 1), dtype=np.uint8)
    images[:, 1] = 255 - images[:, 0]  # odd sums, so no ties
    brighter = (images[:, 1, 0, 0] > images[:, 0, 0, 0]).astype(np.int64)
    labels = np.where(np.arange(count) % 4 == 0, 1 - brighter, brighter)
    outputs = run_file(IDENTITY, Split("score", images, labels, ""), CONTRACT)
    assert len(outputs) == count
    right = score_outputs(["accuracy"], outputs, labels)
    assert right == {"accuracy": pytest.approx(1 - math.ceil(count / 4) / count)}


def test_logits_are_of_normalised_pixels():
    images = np.array([[0, 255], [51, 204]], np.uint8).reshape(2, 2, 1, 1)
    np.testing.assert_allclose(predict(IDENTITY, images, CONTRACT), [[-1, 1], [-0.6, 0.6]], rtol=1e-5)


def test_a_network_that_returns_nan_has_no_score():
    broken = {"classifier.weight": np.full((2, 2), np.nan, np.float32)}
    model = write_onnx(Network("broken", CONTRACT, NODES, "classifier"), broken)
    with pytest.raises(FloatingPointError, match="not finite"):
        predict(model, np.ones((3, 2, 1, 1), np.uint8), CONTRACT)
