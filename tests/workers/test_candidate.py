"""A candidate against its base: the transforms in their one order keep what slicing alone loses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from search_spaces.apply import apply
from search_spaces.design import Design
from search_spaces.network import Op
from search_spaces.precision import W8A8
from search_spaces.spec import Reconstruct
from tests.workers.on_digits import CALIBRATION_IMAGES, DigitsHome, half
from workers.base import Base, load_base
from workers.candidate import Candidate, build_candidate
from workers.importance.norms import norm_scores
from workers.onnx_writer import write_onnx
from workers.score import predict
from workers.splits import Splits, normalise
from workers.torch_network import build_module
from workers.transforms.reconstruct import Observed, observe
from workers.weight_grids import quantised_weight
from workers.weights import check_weights

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def splits(digits_home: DigitsHome) -> Splits:
    return digits_home.splits


@pytest.fixture(scope="module")
def base(digits_home: DigitsHome) -> Base:
    return load_base(digits_home.key, digits_home.folder)


@pytest.fixture(scope="module")
def observed(base: Base, splits: Splits) -> Observed:
    images = splits.calibrate.first(CALIBRATION_IMAGES).images
    return observe(base.network, base.weights, normalise(images, base.network.input))


def rank(base: Base, order: int = 1) -> np.ndarray:
    return norm_scores(base.network, base.weights, order)


def accuracy(candidate: Candidate, splits: Splits) -> float:
    """On every image that neither the base nor the candidate was made from."""
    model = write_onnx(candidate.network, candidate.weights, candidate.ranges)
    images = np.concatenate([splits.score.images, splits.confirm.images, splits.test.images])
    labels = np.concatenate([splits.score.labels, splits.confirm.labels, splits.test.labels])
    return float((predict(model, images, candidate.network.input).argmax(axis=1) == labels).mean())


@pytest.mark.parametrize("design", [half("fp32"), half("w8a8"), half("w8a8", group_size=2)])
def test_half_of_the_channels_go_and_most_of_the_accuracy_stays(design, base, observed, splits) -> None:
    """Slicing alone is near guessing; recalibrated norms bring much of it back, least squares more."""
    scores = rank(base)
    found = {
        method: accuracy(build_candidate(base, design, observed, method, scores), splits) for method in Reconstruct
    }
    assert found[Reconstruct.LEAST_SQUARES] > found[Reconstruct.NONE] + 0.2
    assert found[Reconstruct.LEAST_SQUARES] > 0.7


def test_a_design_that_changes_nothing_gives_the_base(base, observed, splits) -> None:
    candidate = build_candidate(base, Design.of({}), observed, Reconstruct.LEAST_SQUARES, rank(base))
    images = splits.score.images[:32]
    with torch.inference_mode():
        batch = torch.from_numpy(normalise(images, base.network.input))
        expected = build_module(base.network, base.weights).eval()(batch).numpy()
    model = write_onnx(candidate.network, candidate.weights)
    np.testing.assert_allclose(predict(model, images, base.network.input), expected, rtol=1e-3, atol=1e-3)
    assert candidate.ranges == {}
    assert all(np.array_equal(candidate.raw_weights[name], array) for name, array in base.weights.items())


def test_fine_tuning_comes_behind_reconstruction_and_before_folding(base, observed) -> None:
    design = half("w8a8")
    reconstructed = build_candidate(base, design, observed, Reconstruct.LEAST_SQUARES, rank(base)).raw_weights

    def fine_tune(network, weights):
        assert any(node.op is Op.BATCH_NORM for node in network.nodes)
        assert network == apply(base.network, design)
        assert all(np.array_equal(weights[name], array) for name, array in reconstructed.items())
        return {
            name: array * np.float32(0.5) if name == "classifier.weight" else array for name, array in weights.items()
        }

    scores = rank(base)
    candidate = build_candidate(base, design, observed, Reconstruct.LEAST_SQUARES, scores, fine_tune=fine_tune)
    assert list(candidate.stage_s) == ["slice", "reconstruct", "fine_tune", "fold", "calibrate", "quantise"]
    halved = quantised_weight(reconstructed["classifier.weight"] / 2, W8A8)
    np.testing.assert_array_equal(candidate.weights["classifier.weight"], halved)
    check_weights(apply(base.network, design), candidate.raw_weights)
    check_weights(candidate.network, candidate.weights)
    assert not any(node.op is Op.BATCH_NORM for node in candidate.network.nodes)


def test_the_same_design_gives_the_same_bits_and_leaves_the_base_alone(base, observed) -> None:
    before = {name: array.copy() for name, array in base.weights.items()}
    first, second = (
        build_candidate(base, half("w8a8", group_size=2), observed, Reconstruct.LEAST_SQUARES, rank(base))
        for _ in range(2)
    )
    assert first.ranges == second.ranges
    assert all(np.array_equal(first.weights[name], array) for name, array in second.weights.items())
    assert all(np.array_equal(base.weights[name], array) for name, array in before.items())


def test_fewer_channels_are_left_in_every_layer_that_may_lose_some(base, observed) -> None:
    whole = build_candidate(base, Design.of({}), observed, Reconstruct.NONE, rank(base, order=2)).raw_weights
    sliced = build_candidate(base, half("fp32"), observed, Reconstruct.NONE, rank(base, order=2)).raw_weights
    for name in (f"block{number}.pointwise.weight" for number in range(2, 14)):
        assert len(sliced[name]) == len(whole[name]) // 2
