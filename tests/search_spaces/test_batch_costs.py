"""Costs of many designs at once: the same numbers as of each design's network, for every kind of decision."""

from time import perf_counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search_spaces.accelerators.models import MODELS, simulate
from search_spaces.apply import apply
from search_spaces.batch_costs import BatchCosts
from search_spaces.build_space import build_space
from search_spaces.catalog import build_network
from search_spaces.costs import symbolic_values
from search_spaces.objectives import SYMBOLIC_METRICS
from search_spaces.spec import Family, NetworkSpec, SpaceSpec
from tests.random_spaces import spaces


def some_rows(space, count, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(
        [len(decision.choices) for decision in space.decisions], size=(count, len(space.decisions))
    )


def space_on(device, family=Family.MOBILENET_V1):
    side = 75 if family is Family.INCEPTION_V3 else 32
    network = build_network(NetworkSpec(family=family, input=(3, side, side)), 10, (0.5,) * 3, (0.5,) * 3)
    capabilities = MODELS[device].capabilities
    bits = {"weight_bits": {"choices": [2, 4, 6, 8]}, "activation_bits": {"choices": [2, 4, 6, 8]}}
    precisions = {"precision": {"choices": capabilities.precisions}}
    spec = {"prune_ratio": {"high": 0.7, "step": 0.1}, **(bits if capabilities.separate_bits else precisions)}
    return build_space(network, SpaceSpec.model_validate(spec), capabilities)[0]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_counts_are_those_of_the_networks_that_designs_lead_to(data):
    space = data.draw(spaces())
    rows = some_rows(space, 6, data.draw(st.integers(0, 99)))
    found = BatchCosts(space)(rows, sorted(SYMBOLIC_METRICS))
    for number, row in enumerate(rows):
        expected = symbolic_values(apply(space.network, space.design_at(row)))
        assert {metric: found[metric][number] for metric in found} == expected


@pytest.mark.parametrize("name", sorted(MODELS))
def test_devices_tell_the_same(name):
    space = space_on(name)
    rows = some_rows(space, 20)
    metrics = [str(metric) for metric in MODELS[name].capabilities.metrics]
    found = BatchCosts(space, name)(rows, metrics)
    for number, row in enumerate(rows):
        expected = simulate(name, apply(space.network, space.design_at(row)))
        assert {metric: found[metric][number] for metric in found} == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("family", list(Family))
def test_counts_of_every_network_of_the_catalog(family):
    space = space_on("bit-fusion-edge", family)
    rows = some_rows(space, 4)
    found = BatchCosts(space)(rows, sorted(SYMBOLIC_METRICS))
    for number, row in enumerate(rows):
        expected = symbolic_values(apply(space.network, space.design_at(row)))
        assert {metric: found[metric][number] for metric in found} == expected


def test_a_metric_that_nothing_tells_is_refused():
    space = space_on("bit-fusion-edge")
    with pytest.raises(KeyError, match="nothing tells energy_j"):
        BatchCosts(space)(some_rows(space, 1), ["energy_j"])


def test_no_designs_cost_nothing():
    space = space_on("bit-fusion-edge")
    assert BatchCosts(space)(some_rows(space, 0), ["macs"])["macs"].shape == (0,)


def test_a_thousand_designs_take_less_than_a_tenth_of_what_they_take_one_by_one():
    space = space_on("bit-fusion-edge")
    costs, rows = BatchCosts(space, "bit-fusion-edge"), some_rows(space, 1000)
    costs(rows[:1], ["macs", "latency_s"])
    start = perf_counter()
    costs(rows, ["macs", "latency_s"])
    together_s = perf_counter() - start
    start = perf_counter()
    for row in rows[:20]:
        network = apply(space.network, space.design_at(row))
        symbolic_values(network)
        simulate("bit-fusion-edge", network)
    assert together_s / 1000 < 0.1 * (perf_counter() - start) / 20
