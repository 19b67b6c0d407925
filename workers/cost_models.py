"""Fits cost models to what the database has, and finds out how wrong they are on networks that they have not seen.

Which networks those are is decided by their digests: a fifth, the same ones however often a model is fitted again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from sqlalchemy import Engine

from search_spaces.cost_models.additive import NUMBERS, AdditiveModel, UncoveredError, numbers_of
from search_spaces.objectives import Metric
from service.cost_models.actions import add_cost_model
from service.cost_models.queries import HELD_OUT, MeasuredNetwork, measured_networks
from service.db import reading, transaction
from service.models import CostModel
from workers.additive_fit import Sample, fit
from workers.host_lock import training

_FEWEST_HELD_OUT = 5
MOST_POINTS = 500


def is_held_out(digest: str) -> bool:
    return int(digest[:8], 16) % HELD_OUT == 0


def fit_model(engine: Engine, conditions_id: int, metric: Metric = Metric.LATENCY_S) -> CostModel:
    """Fit to all that was measured under some conditions, and store the next version.

    Raises:
        TooFewError: too few networks were measured.
    """
    with reading(engine) as session:
        networks = measured_networks(session, conditions_id, metric)
    samples = {network.digest: _sample(network) for network in networks}
    seen = [sample for digest, sample in samples.items() if not is_held_out(digest)]
    with training():
        model = fit(seen)
    report = error_report(model, [sample for digest, sample in samples.items() if is_held_out(digest)])
    report |= {"repeatability": repeatability(networks), "networks": len(networks)}
    with transaction(engine) as session:
        added = add_cost_model(session, conditions_id, metric, model, len(seen), report)
        session.expunge(added)
        return added


def _sample(network: MeasuredNetwork) -> Sample:
    return Sample(network.terms(), float(np.median(network.costs)))


def repeatability(networks: Sequence[MeasuredNetwork]) -> dict[str, Any] | None:
    """Mean relative difference between two measurements of one network; None where nothing was measured twice."""
    differences = [
        abs(later / earlier - 1)
        for network in networks
        for earlier, later in zip(network.costs, network.costs[1:], strict=False)
    ]
    return {"pairs": len(differences), "mean": float(np.mean(differences))} if differences else None


def error_report(model: AdditiveModel, unseen: Sequence[Sample]) -> dict[str, Any]:
    """How wrong a model is on networks that it was not fitted to: of all, and by what they compute in."""
    groups: dict[str, list[Sample]] = {"all": list(unseen)}
    for name in NUMBERS:
        groups[name] = [sample for sample in unseen if numbers_of(sample.terms) == name]
    held_out = {name: _errors(model, group) for name, group in groups.items() if group}
    return {"held_out": held_out, "points": list(_points(model, unseen[-MOST_POINTS:]))}


def _points(model: AdditiveModel, unseen: Sequence[Sample]) -> Iterator[dict[str, Any]]:
    """What is drawn: predicted against measured, both positive."""
    for sample in unseen:
        try:
            value = model.predict_terms(sample.terms).value
        except UncoveredError:
            continue
        yield {"predicted": value, "measured": sample.cost, "numbers": numbers_of(sample.terms)}


def _errors(model: AdditiveModel, unseen: Sequence[Sample]) -> Mapping[str, Any]:
    predictions, costs, uncovered = [], [], 0
    for sample in unseen:
        try:
            predictions.append(model.predict_terms(sample.terms))
            costs.append(sample.cost)
        except UncoveredError:
            uncovered += 1
    values, truth = np.array([one.value for one in predictions]), np.array(costs)
    if not len(truth):
        return {"networks": 0, "uncovered": uncovered}
    errors = np.abs(values / truth - 1)
    inside = [one.low <= cost <= one.high for one, cost in zip(predictions, costs, strict=True)]
    return {
        "networks": len(truth),
        "uncovered": uncovered,
        "mean_error": float(errors.mean()),
        "bias": float((values / truth - 1).mean()),
        "within_5_percent": float((errors <= 0.05).mean()),
        "within_10_percent": float((errors <= 0.10).mean()),
        "rank_correlation": float(spearmanr(values, truth)[0]) if len(truth) >= _FEWEST_HELD_OUT else None,
        "interval_coverage": float(np.mean(inside)),
    }
