"""Terms of networks, and the additive model's arithmetic: what it predicts follows from what it was given."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pytest

from search_spaces.catalog import build_network
from search_spaces.cost_models.additive import (
    AdditiveModel,
    KindModel,
    Neighbours,
    UncoveredError,
    model_from_bytes,
    model_to_bytes,
    numbers_of,
)
from search_spaces.cost_models.terms import Term, network_terms, terms_of
from search_spaces.costs import network_workload, workloads
from search_spaces.network import Network
from search_spaces.precision import W8A8
from search_spaces.spec import Family, NetworkSpec


def network(family: Family = Family.MOBILENET_V1, width: float = 0.5) -> Network:
    return build_network(NetworkSpec(family=family, width=width, input=(3, 32, 32)), 10, (0.5,) * 3, (0.5,) * 3)


def in_integers(base: Network, blocks: set[str] | None = None) -> Network:
    layers = [node for node in base.compute_nodes() if blocks is None or node.block in blocks]
    return base.with_nodes({node.name: replace(node, precision=W8A8) for node in layers})


def conversions(terms: tuple[Term, ...]) -> list[str]:
    return [term.kind for term in terms if " to " in term.kind]


def everywhere(rates: np.ndarray, coordinates: int, start: int) -> KindModel:
    """A kind without corrections, of any size."""
    low, high = np.full(coordinates, -np.inf), np.full(coordinates, np.inf)
    return KindModel(rates, np.empty((0, coordinates)), np.empty((0, 0)), start, low, high)


def plain_model(terms: tuple[Term, ...], rate: float = 1e-9) -> AdditiveModel:
    """Every amount costs the same; nothing is corrected."""
    kinds = {term.kind: len(term.amounts) for term in terms}
    coordinates = {term.kind: len(term.coordinates) for term in terms}
    parts = {
        kind: everywhere(np.full(count, rate), coordinates[kind], start)
        for start, (kind, count) in enumerate(kinds.items())
    }
    columns = len(parts)
    shares = np.full((3, columns), 1 / columns)
    near = Neighbours(shares, np.array([0.01, 0.02, 0.04]), np.full(3, 0.02))
    return AdditiveModel(parts, 1.0, 0.1, np.zeros(columns), np.zeros((columns, columns)), near)


def test_each_operator_has_one_term_and_floats_have_no_conversions():
    terms = terms_of(network())
    layers = [term for term in terms if len(term.amounts) == 5]
    assert len(layers) == len(network().compute_nodes())
    assert conversions(terms) == ["float to packed"]  # the image
    assert sum(term.amounts[1] for term in layers) == sum(_macs(one.signature) for one in workloads(network()))


def _macs(signature: str) -> int:
    parts = json.loads(signature)
    if parts["ops"][0] not in ("conv", "linear"):
        return 0
    inputs, outputs = parts["inputs"][0][0], parts["output"][0]
    pixels = int(np.prod(parts["output"][1:-1]))
    return int(np.prod(parts["kernel"])) * inputs // parts["groups"] * outputs * pixels


def test_integers_in_the_middle_cost_a_way_in_and_a_way_out():
    mixed = in_integers(network(), {"block4", "block5"})
    assert conversions(terms_of(mixed)) == ["float to packed", "packed to integer", "integer to packed"]
    assert numbers_of(terms_of(mixed)) == "mixed"
    assert numbers_of(terms_of(network())) == "float"
    assert numbers_of(terms_of(in_integers(network()))) == "integer"


def test_floats_behind_integers_are_added_where_they_are_not_packed():
    """What the residual stream has been through decides how every later block adds to it."""
    base = network(Family.RESNET_56, 1.0)
    first = base.compute_nodes()[3].block
    plain, mixed = terms_of(base), terms_of(in_integers(base, {first}))
    adds = [[term.kind for term in terms if term.kind.startswith("add")] for terms in (plain, mixed)]
    assert set(adds[0]) == {"add of 2 packed"}
    assert "add of 2 float" in adds[1]


def test_terms_are_told_from_signatures_alone():
    mixed = in_integers(network(), {"block4"})
    signatures = [one.signature for one in workloads(mixed)]
    reads = json.loads(network_workload(mixed).signature)["reads"]
    assert network_terms(signatures, reads) == terms_of(mixed)
    with pytest.raises(ValueError, match="not the signature of an operator"):
        network_terms(['{"ops":["conv"]}'], [[-1]])


def test_a_prediction_is_the_sum_of_its_parts():
    terms = terms_of(network())
    found = plain_model(terms).predict(network())
    assert found.value == pytest.approx(1e-9 * sum(sum(term.amounts) for term in terms))
    assert sum(found.parts) == pytest.approx(found.value)
    assert found.spread == pytest.approx(1.4826 * 0.02)  # nothing but noise: the median of the neighbours' errors
    assert found.low < found.value < found.high


def test_uncertain_corrections_widen_the_interval():
    terms = terms_of(network())
    sure = plain_model(terms)
    unsure = replace(sure, covariance=np.eye(len(sure.weights)))
    assert unsure.predict(network()).spread > sure.predict(network()).spread
    assert unsure.predict(network()).value == sure.predict(network()).value


def test_what_was_never_measured_is_refused_by_name():
    model = plain_model(terms_of(network()))
    with pytest.raises(UncoveredError, match="integer") as refused:
        model.predict(in_integers(network()))
    assert all("integer" in kind for kind in refused.value.kinds)


def test_a_model_survives_its_bytes():
    model = plain_model(terms_of(network()))
    again = model_from_bytes(model_to_bytes(model))
    assert again.predict(network()) == model.predict(network())
    with pytest.raises(ValueError, match="pickle"):
        model_from_bytes(b"no archive at all")


def test_neighbours_judge_by_networks_that_are_alike():
    shares = np.repeat([[1.0, 0.0], [0.0, 1.0]], 60, axis=0)
    near = Neighbours(shares, np.repeat([0.01, 0.10], 60), np.full(120, 0.05))
    (quiet, narrow), (loud, wide) = near.judge(np.array([0.9, 0.1])), near.judge(np.array([0.1, 0.9]))
    assert quiet == pytest.approx(1.4826 * 0.01)
    assert loud == pytest.approx(10 * quiet)
    assert wide == pytest.approx(10 * narrow)


def test_a_prediction_takes_milliseconds():
    mixed = in_integers(network(), {"block4"})
    model = plain_model(terms_of(mixed))
    times = []
    for _ in range(20):
        begun = time.perf_counter()
        model.predict(mixed)
        times.append(time.perf_counter() - begun)
    assert min(times) < 0.005  # 1.3 ms with a fitted model here; the limit leaves room for slower machines
