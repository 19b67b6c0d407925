"""Training from regrouped weights and from fresh ones, on real digits."""

from __future__ import annotations

import pytest

from search_spaces.design import Design
from tests.workers.on_digits import DigitsHome
from workers.base import load_base
from workers.fold import fold_batch_norms
from workers.group_training import Start, compare_starts
from workers.onnx_writer import write_onnx
from workers.progress import ignore_progress
from workers.score import run_file, score_outputs
from workers.train import Recipe, train

pytestmark = pytest.mark.usefixtures("one_thread")


def test_regrouped_weights_begin_where_the_base_is_and_fresh_ones_do_not(digits_home: DigitsHome) -> None:
    base, splits = load_base(digits_home.key, digits_home.folder), digits_home.splits
    model = write_onnx(*fold_batch_norms(base.network, base.weights))
    outputs = run_file(model, splits.test, base.network.input)
    of_base = score_outputs(["accuracy"], outputs, splits.test.labels)["accuracy"]
    recipe = Recipe(epochs=1, batch_size=32, learning_rate=0.01)
    begun_from = []

    def one_epoch(network, weights):
        begun_from.append((network, weights))
        return train(network, weights, splits.train, recipe, ignore_progress, lambda: None)

    regrouped, scratch = compare_starts(base, Design.of({"group_size/network": 4}), one_epoch, splits.test)
    assert (regrouped.start, scratch.start) == (Start.REGROUPED, Start.SCRATCH)
    assert regrouped.before == pytest.approx(of_base, abs=0.005)
    assert scratch.before is None
    assert regrouped.after > of_base - 0.05
    assert regrouped.after > scratch.after + 0.2
    (first, weights), (second, nothing) = begun_from
    assert first == second
    assert nothing is None
    assert weights["block5.depthwise.weight"].shape[1] == 4
