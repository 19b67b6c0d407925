"""Scores against their contract, scikit-learn's figures, and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from search_spaces.objectives import DEVICE_METRICS, MAP_METRICS, SYMBOLIC_METRICS, Metric
from search_spaces.scores import BUILT_IN_SCORES, Score, wilson_interval
from search_spaces.scores.classification import Accuracy, BalancedAccuracy, MacroF1, RocAuc, Top5Accuracy
from search_spaces.scores.regression import R2, MeanAbsoluteError
from search_spaces.scores.testing import ScoreContract


class TestAccuracy(ScoreContract):
    def make_score(self) -> Score:
        return Accuracy()


class TestTop5Accuracy(ScoreContract):
    def make_score(self) -> Score:
        return Top5Accuracy()


class TestBalancedAccuracy(ScoreContract):
    def make_score(self) -> Score:
        return BalancedAccuracy()


class TestMacroF1(ScoreContract):
    def make_score(self) -> Score:
        return MacroF1()


class TestRocAuc(ScoreContract):
    def make_score(self) -> Score:
        return RocAuc()


class TestMeanAbsoluteError(ScoreContract):
    def make_score(self) -> Score:
        return MeanAbsoluteError()


class TestR2(ScoreContract):
    def make_score(self) -> Score:
        return R2()


def test_every_metric_is_a_cost_or_a_score() -> None:
    assert BUILT_IN_SCORES.keys() | DEVICE_METRICS | SYMBOLIC_METRICS | MAP_METRICS == set(Metric)


def case(classes: int, seed: int, images: int = 150) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    targets = np.concatenate([np.arange(classes), generator.integers(0, classes, images - classes)])
    outputs = generator.normal(size=(images, classes)).astype(np.float32)
    outputs[np.arange(images), targets] += 0.8
    return outputs, targets


@given(st.integers(6, 12), st.integers(0, 1000))
def test_classification_agrees_with_scikit_learn(classes: int, seed: int) -> None:
    outputs, targets = case(classes, seed)
    told = outputs.argmax(axis=1)
    assert Accuracy().value(outputs, targets) == pytest.approx(metrics.accuracy_score(targets, told))
    assert BalancedAccuracy().value(outputs, targets) == pytest.approx(metrics.balanced_accuracy_score(targets, told))
    assert MacroF1().value(outputs, targets) == pytest.approx(metrics.f1_score(targets, told, average="macro"))
    expected = metrics.top_k_accuracy_score(targets, outputs, k=5, labels=np.arange(classes))
    assert Top5Accuracy().value(outputs, targets) == pytest.approx(expected)


@given(st.integers(0, 1000), st.booleans())
def test_the_area_agrees_with_scikit_learn(seed: int, has_ties: bool) -> None:
    outputs, targets = case(2, seed)
    if has_ties:
        outputs = np.round(outputs)
    expected = metrics.roc_auc_score(targets, outputs[:, 1] - outputs[:, 0])
    assert RocAuc().value(outputs, targets) == pytest.approx(expected)


@given(st.integers(0, 1000))
def test_regression_agrees_with_scikit_learn(seed: int) -> None:
    generator = np.random.default_rng(seed)
    targets = generator.normal(1000, 5, 80).astype(np.float32)
    outputs = (targets + generator.normal(0, 3, 80)).astype(np.float32)[:, None]
    assert MeanAbsoluteError().value(outputs, targets) == pytest.approx(
        metrics.mean_absolute_error(targets, outputs[:, 0]), rel=1e-5
    )
    assert R2().value(outputs, targets) == pytest.approx(metrics.r2_score(targets, outputs[:, 0]), rel=1e-4)


def test_what_is_not_defined_is_0() -> None:
    outputs = np.array([[1, 0], [0, 1]], np.float32)
    assert RocAuc().value(outputs, np.array([1, 1])) == 0
    assert R2().value(outputs[:, :1], np.array([5, 5], np.float32)) == 0


def test_a_class_that_is_only_told_counts_in_f1_and_one_that_is_nowhere_does_not() -> None:
    outputs = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    assert MacroF1().value(outputs, np.array([0, 0])) == pytest.approx((2 / 3 + 0) / 2)
    assert BalancedAccuracy().value(outputs, np.array([0, 0])) == 0.5


def test_the_resampled_interval_covers_as_often_as_it_says() -> None:
    """95% of 200 samples within six sigmas: at least 0.95 - 6 sqrt(.95 * .05 / 200) = 0.857 of them."""
    generator = np.random.default_rng(0)
    targets = np.zeros(120, np.float32)
    hits = 0
    for _ in range(200):
        low, high = MeanAbsoluteError().interval(generator.normal(size=(120, 1)).astype(np.float32), targets)
        hits += low <= np.sqrt(2 / np.pi) <= high
    assert hits >= 0.857 * 200


def test_wilsons_interval_is_never_outside_0_and_1() -> None:
    assert wilson_interval(0.0, 5)[0] == 0
    assert wilson_interval(1.0, 5)[1] == 1
