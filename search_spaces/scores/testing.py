"""What every Score must do, as tests. Subclass it in a test module and say which score.

class TestMyScore(ScoreContract):
    def make_score(self) -> Score:
        return MyScore()
"""

from __future__ import annotations

import math
from abc import abstractmethod

import numpy as np
import pytest

from search_spaces.datasets import Task
from search_spaces.objectives import DEVICE_METRICS, MAP_METRICS, SYMBOLIC_METRICS, Direction
from search_spaces.parse import parse_spec
from search_spaces.scores.base import Scale, Score

MOST_CLASSES = 8


def draw_case(score: Score, images: int, quality: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Outputs and targets of the score's task; at a quality of 1 outputs are right, at 0 they are chance."""
    generator = np.random.default_rng(seed)
    if score.info.task is Task.REGRESSION:
        values, noise = generator.normal(50, 20, (2, images)).astype(np.float32)
        return (quality * values + (1 - quality) * noise).astype(np.float32)[:, None], values
    classes = min(score.info.most_classes or MOST_CLASSES, MOST_CLASSES)
    targets = generator.integers(0, classes, images)
    outputs = generator.random((images, classes)) * (1 - quality)
    outputs[np.arange(images), targets] += quality
    return outputs.astype(np.float32), targets


class ScoreContract:
    """See `search_spaces.scores.base.Score`."""

    @abstractmethod
    def make_score(self) -> Score:
        """The score under test."""

    @pytest.fixture
    def score(self) -> Score:
        return self.make_score()

    def test_a_spec_can_name_it(self, score: Score) -> None:
        name = score.info.name
        assert name not in DEVICE_METRICS | SYMBOLIC_METRICS | MAP_METRICS
        assert not name.endswith(("_low", "_high")), "these are the ends of an interval"
        objective = {"metric": name, "direction": str(score.info.direction)}
        document = {
            "name": "contract",
            "network": {"family": "mobilenet_v1", "input": [1, 28, 28]},
            "dataset": {"name": "any"},
            "space": {},
            "objectives": [objective],
        }
        assert parse_spec(document).objectives[0].metric == name

    def test_better_outputs_have_better_scores(self, score: Score) -> None:
        values = [score.value(*draw_case(score, 400, quality)) for quality in (0.0, 0.3, 1.0)]
        ordered = sorted(values, reverse=score.info.direction is Direction.MINIMIZE)
        assert values == ordered
        assert values[0] != values[-1]

    def test_the_order_of_images_makes_no_difference(self, score: Score) -> None:
        outputs, targets = draw_case(score, 200, 0.3)
        order = np.random.default_rng(1).permutation(200)
        shuffled = score.value(outputs[order], targets[order])
        assert score.value(outputs, targets) == pytest.approx(shuffled, rel=1e-6)

    def test_nothing_is_changed_and_nothing_remembered(self, score: Score) -> None:
        outputs, targets = draw_case(score, 100, 0.3)
        before = outputs.copy(), targets.copy()
        first = score.value(outputs, targets)
        score.value(*draw_case(score, 50, 0.9, seed=5))
        assert score.value(outputs, targets) == first
        np.testing.assert_array_equal(outputs, before[0])
        np.testing.assert_array_equal(targets, before[1])

    @pytest.mark.parametrize("images", [1, 2, 3])
    def test_few_images_and_missing_classes_are_no_error(self, score: Score, images: int) -> None:
        outputs, targets = draw_case(score, images, 0.5)
        targets[:] = targets[0]
        assert math.isfinite(score.value(outputs, targets))

    def test_a_share_stays_between_0_and_1(self, score: Score) -> None:
        if score.info.scale is not Scale.SHARE:
            pytest.skip("this one is a number of any size")
        for quality in (0.0, 0.5, 1.0):
            value = score.value(*draw_case(score, 300, quality))
            assert 0 <= value <= 1, f"{value} is no share: say Scale.NUMBER in `info`"

    def test_the_interval_holds_the_value_and_narrows(self, score: Score) -> None:
        widths = []
        for images in (60, 960):
            outputs, targets = draw_case(score, images, 0.4)
            low, high = score.interval(outputs, targets)
            assert low <= score.value(outputs, targets) <= high
            assert score.interval(outputs, targets) == (low, high)
            widths.append(high - low)
        assert widths[1] < widths[0] or widths == [0.0, 0.0]
