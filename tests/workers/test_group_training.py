"""Training from regrouped weights and from fresh ones, on real digits."""

from __future__ import annotations

import pytest

from search_spaces.apply import apply
from search_spaces.check import check_spec
from search_spaces.cost_models.balance import grouped_convs
from search_spaces.costs import macs
from search_spaces.design import Design
from search_spaces.known import Sources
from search_spaces.objectives import TrialState
from tests.workers.on_digits import DigitsHome, digits_spec
from workers.announce import local_known
from workers.base import load_base
from workers.fold import fold_batch_norms
from workers.group_training import Start, compare_starts
from workers.jobs import evaluate
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


@pytest.mark.parametrize(
    "space", [{"groups": {"choices": [16, 4]}}, {"group_size": {"scope": "network", "choices": [1, 4]}}], ids=str
)
def test_a_pruned_design_with_groups_of_the_whole_network_is_tried(space, digits_home: DigitsHome) -> None:
    """Sliced, regrouped, reconstructed, quantised, written and scored, and what the file holds is what was promised."""
    ratios = {"low": 0.0, "high": 0.5, "step": 0.5}
    precision = {"choices": ["fp32", "w8a8"], "scope": "block"}
    spec = digits_spec(space={"prune_ratio": ratios, "precision": precision, **space})
    checked = check_spec(spec, local_known())
    design = checked.space.design_at([len(decision.choices) - 1 for decision in checked.space.decisions])
    outcome = evaluate(spec, Sources(), design, digits_home.key, digits_home.folder)
    assert outcome.state is TrialState.SUCCEEDED, outcome.reason
    applied = apply(checked.network, design)
    assert outcome.values["macs"] == macs(applied)
    assert outcome.values["accuracy"] > 0.6
    convs = grouped_convs(applied).values()
    if "groups" in space:
        assert {conv.inputs // conv.group_size for conv in convs} == {4}
    else:
        assert {conv.group_size for conv in convs} == {4}
