"""What budget limits are relative to, where a device has to be asked: the base, or the base in a precision."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search_spaces.budgets import Budget, budgets_of
from search_spaces.known import Sources
from search_spaces.network import in_precision
from search_spaces.objectives import Metric
from search_spaces.precision import Precision, parse_precision
from search_spaces.spec import BASE, SearchSpec
from workers.base import Base
from workers.fold import fold_batch_norms
from workers.hardware.base import Deployed
from workers.workbench import device_called, set_up


def measure_budget_bases(
    spec: SearchSpec, sources: Sources, base: Base, anchor: Mapping[str, Any], home: Path
) -> dict[str, float]:
    """The base's figures by `Budget.key`; `anchor` has what the device has told of the base itself, by metric."""
    unknown = [budget for budget in budgets_of(spec, base.network) if budget.base is None]
    return {budget.key: _measure(budget, spec, sources, base, anchor, home) for budget in unknown}


def _measure(
    budget: Budget, spec: SearchSpec, sources: Sources, base: Base, anchor: Mapping[str, Any], home: Path
) -> float:
    if budget.relative_to == BASE:
        return float(anchor[budget.metric])
    precision = parse_precision(budget.relative_to)
    device = device_called(str(budget.device))
    if not device.capabilities().simulated:
        return _latency_in(precision, spec, sources, base, home)
    folded, _ = fold_batch_norms(base.network, base.weights)
    return float(device.measure(Deployed(in_precision(folded, precision)))[Metric(budget.metric)].median)


def _latency_in(precision: Precision, spec: SearchSpec, sources: Sources, base: Base, home: Path) -> float:
    return set_up(spec, sources, base.key, home).anchor_in(precision).latency_s
