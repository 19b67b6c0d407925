"""Pruning in rounds, with real training between, on digits."""

from __future__ import annotations

import numpy as np
import pytest

from search_spaces.network import Network
from search_spaces.ranking import PruningSchedule, Ranking, count_filters, filters_left
from search_spaces.spec import Reconstruct
from tests.workers.on_digits import CALIBRATION_IMAGES, DigitsHome
from tests.workers.torch_accuracy import accuracy
from workers.base import Base, load_base
from workers.importance import IMPORTANCES
from workers.importance.flow import BiasedLossPreservation
from workers.importance.norms import L1Norm
from workers.progress import ignore_progress
from workers.splits import Splits, normalise
from workers.train import Recipe, train
from workers.transforms.rounds import Pruned, Rounds, prune_in_rounds
from workers.weights import Weights, check_weights

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base(digits_home: DigitsHome) -> Base:
    return load_base(digits_home.key, digits_home.folder)


@pytest.fixture(scope="module")
def splits(digits_home: DigitsHome) -> Splits:
    return digits_home.splits


def as_it_is(network: Network, weights: Weights, number: int) -> Weights:
    return weights


def prune(base: Base, splits: Splits, plan: Rounds, importance=L1Norm, train_round=as_it_is) -> Pruned:
    images = normalise(splits.calibrate.first(CALIBRATION_IMAGES).images, base.network.input)
    return prune_in_rounds(base.network, base.weights, importance(), images, splits.train, plan, train_round)


def test_it_trains_then_scores_then_prunes(base, splits) -> None:
    seen: list[tuple[int, int]] = []

    def train_round(network: Network, weights: Weights, number: int) -> Weights:
        seen.append((number, count_filters(network)))
        recipe = Recipe(epochs=1, batch_size=32, learning_rate=0.02)
        return train(network, weights, splits.train, recipe, ignore_progress, lambda: None)

    plan = Rounds(ratio=0.5, rounds=3)
    pruned = prune(base, splits, plan, BiasedLossPreservation, train_round)

    assert seen == list(zip((1, 2, 3), pruned.filters[:3], strict=True))
    wanted = filters_left(pruned.filters[0], 0.5, 3, PruningSchedule.EXACT)
    assert pruned.filters[1:] == pytest.approx(wanted, abs=2)
    check_weights(pruned.network, pruned.weights)
    tuned = train_round(pruned.network, pruned.weights, 4)
    assert accuracy(pruned.network, tuned, splits.test) > 0.7  # of ten classes, with half of the filters


def test_repairing_keeps_more_than_slicing_alone(base, splits) -> None:
    found = {}
    for method in (Reconstruct.NONE, Reconstruct.LEAST_SQUARES):
        pruned = prune(base, splits, Rounds(ratio=0.5, ranking=Ranking.LOCAL, reconstruct=method))
        found[method] = accuracy(pruned.network, pruned.weights, splits.test)
    assert found[Reconstruct.LEAST_SQUARES] > found[Reconstruct.NONE] + 0.2


@pytest.mark.parametrize("name", IMPORTANCES)
def test_every_importance_ranks_globally(base, splits, name: str) -> None:
    plan = Rounds(ratio=0.3, schedule=PruningSchedule.PAPER_CODE, reconstruct=Reconstruct.LEAST_SQUARES)
    pruned = prune(base, splits, plan, IMPORTANCES[name])
    assert pruned.filters[1] == pytest.approx(0.7 * pruned.filters[0], abs=2)
    assert accuracy(pruned.network, pruned.weights, splits.test) > 0.15


def test_the_base_is_left_as_it_was(base, splits) -> None:
    before = {name: array.copy() for name, array in base.weights.items()}
    prune(base, splits, Rounds(ratio=0.5, rounds=2, reconstruct=Reconstruct.LEAST_SQUARES))
    assert all(np.array_equal(base.weights[name], array) for name, array in before.items())
