"""Costs as sums over parts and as tables over few decisions: the same as of whole designs, where that is said."""

from itertools import pairwise

import numpy as np
import pytest

from search_spaces.accelerators.models import MODELS
from search_spaces.batch_costs import BatchCosts
from search_spaces.cost_tables import cost_tables
from search_spaces.objectives import SYMBOLIC_METRICS, Metric
from search_spaces.spec import Family
from tests.random_small_spaces import small_space
from tests.search_spaces.test_batch_costs import some_rows, space_on

SUMS = sorted(SYMBOLIC_METRICS - {Metric.PEAK_ACTIVATION_BYTES})


def levels_of(space):
    return [len(decision.choices) for decision in space.decisions]


@pytest.mark.parametrize("device", sorted(MODELS))
def test_parts_sum_up_to_what_whole_designs_take(device):
    space = space_on(device)
    costs, rows = BatchCosts(space, device), some_rows(space, 5)
    for metric in costs.sums:
        parts = costs.parts(rows, metric)
        assert parts.shape[0] == 5
        assert parts.shape[1] > 20
        assert parts.sum(axis=1) == pytest.approx(costs(rows, [metric])[metric], rel=1e-12)


@pytest.mark.parametrize("metric", [Metric.PEAK_ACTIVATION_BYTES, Metric.MEMORY_BYTES])
def test_what_is_alive_at_one_time_is_no_sum(metric):
    space = space_on("bit-fusion-edge")
    with pytest.raises(KeyError, match="no sum"):
        BatchCosts(space, "bit-fusion-edge").parts(some_rows(space, 1), metric)


def test_counts_of_small_spaces_are_told_exactly_whatever_their_decisions():
    for seed in range(60):
        space = small_space(np.random.default_rng(seed))
        costs = BatchCosts(space)
        tables = cost_tables(costs, levels_of(space), SUMS)
        rows = some_rows(space, 40, seed)
        told = costs(rows, SUMS)
        assert tables.exact == set(SUMS), space.decisions
        assert (tables(rows) == np.stack([told[metric] for metric in SUMS], axis=1)).all()


def test_a_table_is_over_what_one_layer_reads_and_makes():
    space = space_on("roofline-t4")
    channels = [number for number, one in enumerate(space.decisions) if one.name.startswith("channels")]
    tables = cost_tables(BatchCosts(space), levels_of(space), ["macs"])
    # A chain: each pointwise convolution joins the channels before it with its own, and depthwise ones follow.
    assert [scope for scope in sorted(tables.tables) if len(scope) > 1] == list(pairwise(channels))


def test_layers_that_read_many_others_are_told_in_pairs_and_macs_exactly():
    space = space_on("roofline-t4", Family.INCEPTION_V3)
    tables = cost_tables(BatchCosts(space), levels_of(space), ["macs", "parameters"])
    assert tables.exact == {"macs", "parameters"}
    assert max(len(scope) for scope in tables.tables) <= 3


def test_latency_with_bits_and_channels_in_one_layer_is_told_nearly():
    space = space_on("bit-fusion-edge")
    costs, rows = BatchCosts(space, "bit-fusion-edge"), some_rows(space, 100)
    tables = cost_tables(costs, levels_of(space), ["latency_s", "size_bytes"])
    assert tables.exact == {"size_bytes"}
    told, estimated = costs(rows, ["latency_s"])["latency_s"], tables(rows)[:, 0]
    assert np.corrcoef(told, estimated)[0, 1] > 0.95
