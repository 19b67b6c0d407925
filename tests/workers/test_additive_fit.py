"""Fitting: known costs come out, and what is told of samples left out is what leaving them out gives."""

from __future__ import annotations

import random

import numpy as np
import pytest
from scipy.stats import spearmanr

from search_spaces.apply import apply
from search_spaces.build_space import build_space
from search_spaces.catalog import build_network
from search_spaces.cost_models.additive import UncoveredError
from search_spaces.cost_models.terms import terms_of
from search_spaces.network import Network
from search_spaces.spec import Family, NetworkSpec, PrecisionChoices, RatioRange, SpaceSpec
from tests.search_spaces.test_cost_models import network
from workers import additive_fit
from workers.additive_fit import FEWEST, Sample, TooFewError, fit
from workers.hardware.onnxruntime_cpu import OnnxRuntimeCpu

NOISE = 0.02
STATS = (0.5,) * 3


def designs(count: int, seed: int = 0) -> list[Network]:
    precision = PrecisionChoices(choices=("fp32", "w8a8"))
    spec = SpaceSpec(prune_ratio=RatioRange(low=0.0, high=0.8, step=0.1), precision=precision)
    space, _ = build_space(network(), spec, OnnxRuntimeCpu().capabilities())
    generator = random.Random(seed)
    return [
        apply(space.network, space.design_at([generator.randrange(len(one.choices)) for one in space.decisions]))
        for _ in range(count)
    ]


def true_cost(design: Network) -> float:
    """Not of the model's own form: a cache that large layers fall out of, and integers of a quarter of the cost."""
    total = 0.0
    for term in terms_of(design):
        work = sum(term.amounts[1:]) * 1e-9 * (0.25 if term.kind.endswith("integer") else 1.0)
        crowded = 1.5 if len(term.amounts) == 5 and term.amounts[4] > 20_000 else 1.0
        total += 2e-6 + work * crowded
    return total


def samples(count: int, seed: int = 0) -> list[Sample]:
    generator = np.random.default_rng(seed)
    return [
        Sample(terms_of(design), true_cost(design) * float(np.exp(generator.normal(0, NOISE))))
        for design in designs(count, seed)
    ]


@pytest.fixture(scope="module")
def fitted():
    return fit(samples(200))


def test_unseen_networks_are_predicted_to_within_the_noise(fitted):
    unseen = designs(100, seed=1)
    truth = np.array([true_cost(one) for one in unseen])
    predictions = [fitted.predict(one) for one in unseen]
    values = np.array([one.value for one in predictions])
    errors = np.abs(values / truth - 1)
    assert errors.mean() < NOISE
    assert (errors < 0.05).mean() > 0.9
    assert spearmanr(values, truth)[0] > 0.98


def test_intervals_hold_what_they_promise(fitted):
    """90% nominal over 300 draws: six standard errors are 10 points."""
    unseen = samples(300, seed=2)
    held = [found.low <= one.cost <= found.high for one in unseen for found in [fitted.predict_terms(one.terms)]]
    assert 0.80 < np.mean(held) < 0.99


def test_what_is_told_of_a_sample_left_out_is_what_fitting_without_it_gives():
    table = additive_fit._tabulate(samples(40))
    rates = additive_fit._fit_rates(table)
    noise = np.full(40, NOISE)
    _, left = additive_fit._fit_all(table, rates, 1.5, 0.3, noise)
    # The same columns without sample 7: as if it were measured with no certainty at all.
    noise[7] = 1e6
    model, _ = additive_fit._fit_all(table, rates, 1.5, 0.3, noise)
    one = samples(40)[7]
    guesses = model.guesses(one.terms)
    predicted = float((guesses + model.rows(one.terms, guesses) @ model.weights).sum())
    assert left.errors[7] == pytest.approx(1 - predicted / one.cost, rel=1e-6)


def test_too_few_are_refused_with_the_number():
    with pytest.raises(TooFewError, match=f"{FEWEST} measured networks at least; there are 5"):
        fit(samples(5))


def test_one_network_many_times_is_no_reason_to_fail():
    one = samples(1)[0]
    model = fit([Sample(one.terms, one.cost * (1 + 0.001 * number)) for number in range(FEWEST)])
    assert model.predict_terms(one.terms).value == pytest.approx(one.cost, rel=0.05)


def test_sizes_far_beyond_what_was_measured_are_refused(fitted):
    """Maps of 224x224 are not those of 32x32, though the kinds of operators are the same."""
    larger = build_network(NetworkSpec(family=Family.MOBILENET_V1, width=0.5, input=(3, 224, 224)), 10, STATS, STATS)
    with pytest.raises(UncoveredError, match="of such sizes"):
        fitted.predict(larger)


def test_sizes_a_little_beyond_are_answered_with_less_certainty(fitted):
    at, beyond = (
        build_network(NetworkSpec(family=Family.MOBILENET_V1, width=0.5, input=(3, side, side)), 10, STATS, STATS)
        for side in (32, 40)
    )
    inside, outside = fitted.predict(at), fitted.predict(beyond)
    assert outside.spread > 1.1 * inside.spread


def test_a_ratio_is_that_of_the_values_and_no_less_certain_than_both_apart(fitted):
    base, *others = designs(20, seed=5)
    for one in others:
        ratio = fitted.predict_ratio(one, base)
        assert ratio.value == pytest.approx(fitted.predict(one).value / fitted.predict(base).value)
        assert ratio.low < ratio.value < ratio.high
    itself = fitted.predict_ratio(base, base)
    assert itself.value == pytest.approx(1.0)
