"""Whether the budget limits of a spec make sense, and whether any design can keep them; if not, what holds them up."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from search_spaces.apply import apply
from search_spaces.batch_costs import BatchCosts
from search_spaces.budgets import Budget, with_budgets
from search_spaces.capabilities import DeviceCapabilities
from search_spaces.costs import LayerCost, fused_operators, layer_costs
from search_spaces.faults import Fault
from search_spaces.foreseen import ForeseenLimits
from search_spaces.network import Network
from search_spaces.objectives import DEVICE_METRICS, SYMBOLIC_METRICS, Metric
from search_spaces.precision import parse_precision, why_not_computable
from search_spaces.projection import Projection
from search_spaces.space import Space
from search_spaces.spec import BASE, BudgetLimitSpec, SearchSpec

NAMED_LAYERS = 3


def budget_faults(spec: SearchSpec, devices: Mapping[str, DeviceCapabilities]) -> Iterator[Fault]:
    """What is wrong with the budget limits themselves."""
    for number, budget in enumerate(spec.budget_limits):
        pointer = f"/budget_limits/{number}"
        if budget.metric not in SYMBOLIC_METRICS | DEVICE_METRICS:
            named = ", ".join(sorted(map(str, SYMBOLIC_METRICS | DEVICE_METRICS)))
            yield Fault(f"{pointer}/metric", f"{budget.metric} is no cost that a base has; a budget is of {named}")
        elif budget.relative_to != BASE:
            device = devices.get(budget.device) if budget.device else None
            if reason := _unfit_precision(budget, device):
                yield Fault(f"{pointer}/relative_to", reason)


def _unfit_precision(budget: BudgetLimitSpec, device: DeviceCapabilities | None) -> str:
    try:
        precision = parse_precision(budget.relative_to)
    except ValueError:
        return f"write {BASE}, or a precision such as w8a8; {budget.relative_to!r} is neither"
    if reason := why_not_computable(precision):
        return reason
    if device is None or budget.metric in SYMBOLIC_METRICS:
        return ""
    if str(precision) not in device.precisions:
        return f"{device.name} does not execute {precision}, so that nothing is known relative to it"
    if budget.metric != Metric.LATENCY_S and not device.simulated:
        return f"only latency is measured of the base in other precisions; make {budget.metric} relative to {BASE}"
    return ""


def tight_budgets(spec: SearchSpec, budgets: Sequence[Budget], space: Space) -> Iterator[Fault]:
    """Budgets that no design can keep, each by itself, and all of them with the limits together."""
    for number, budget in enumerate(budgets):
        if budget.bound is None:
            continue
        cheapest, is_kept = _cheapest(with_budgets(spec.model_copy(update={"limits": ()}), [budget]), space)
        if not is_kept:
            yield Fault(f"/budget_limits/{number}/at_most", _why_tight(budget, spec, space, cheapest))
            return
    if budgets and not _cheapest(with_budgets(spec, budgets), space)[1]:
        yield Fault(
            "/budget_limits",
            "each of the budgets and limits can be kept, but no design was found that keeps all of them",
        )


def tight_limits(spec: SearchSpec, space: Space) -> Iterator[Fault]:
    """Limits on what a simulated device takes that no design can keep, each by itself, and all without budgets."""
    for number, limit in enumerate(spec.limits):
        if limit.metric not in DEVICE_METRICS or limit.max is None:
            continue
        alone = spec.model_copy(update={"limits": (limit,), "budget_limits": ()})
        cheapest, is_kept = _cheapest(alone, space)
        if not is_kept:
            least, layers = _least(alone, limit.metric, space, cheapest)
            message = (
                f"no design can meet this: the least {limit.metric} in this space is {least:.4g}; the most of it is "
                f"in {layers}: vary those further, or allow more"
            )
            yield Fault(f"/limits/{number}/max", message)
            return
    if len(spec.limits) > 1 and not spec.budget_limits and not _cheapest(spec, space)[1]:
        message = "each of the limits can be kept, but no design was found that keeps all of them: loosen one"
        yield Fault("/limits", message)


def _cheapest(spec: SearchSpec, space: Space) -> tuple[tuple[int, ...], bool]:
    limits = ForeseenLimits(space, spec)
    cheapest = Projection([len(decision.choices) for decision in space.decisions], limits).cheapest()
    return cheapest, bool(limits.keep([cheapest])[0])


def _why_tight(budget: Budget, spec: SearchSpec, space: Space, cheapest: tuple[int, ...]) -> str:
    assert budget.base is not None
    least, layers = _least(with_budgets(spec, [budget]), budget.metric, space, cheapest)
    share = least / budget.base
    what = f"of {budget.relative_to}" if budget.relative_to != BASE else "of the base"
    return (
        f"no design can meet this: the least {budget.metric} in this space is {share:.1%} {what}; of what is left the "
        f"most is in {layers}: vary those further, or ask for at least {math.ceil(1000 * share) / 1000:g}"
    )


def _least(spec: SearchSpec, metric: str, space: Space, cheapest: tuple[int, ...]) -> tuple[float, str]:
    """What the cheapest design takes of a metric, and where most of it is."""
    costs = ForeseenLimits(space, spec).costs
    network = apply(space.network, space.design_at(cheapest))
    shares = _heaviest(network, metric, costs, cheapest)
    told = ", ".join(f"{name} ({share:.0%})" for name, share in shares)
    return float(costs([cheapest], [metric])[metric][0]), told


def _heaviest(network: Network, metric: str, costs: BatchCosts, indices: tuple[int, ...]) -> list[tuple[str, float]]:
    """The layers, or operators, with the largest shares of a metric; of memory, which is no sum, of bytes touched."""
    if metric in DEVICE_METRICS and metric in costs.sums:
        taken = costs.parts([indices], metric)[0].tolist()
        names = [layer.name for layer in network.compute_nodes()]
        if len(taken) != len(names):  # a device that counts operators, not layers alone
            names = [operator.nodes[0].name for operator in fused_operators(network)]
        rows = list(zip(names, taken, strict=True))
    else:
        rows = [(one.name, _of_layer(one, metric)) for one in layer_costs(network)]
    total = sum(cost for _, cost in rows) or 1
    heaviest = sorted(rows, key=lambda row: -row[1])[:NAMED_LAYERS]
    return [(name, cost / total) for name, cost in heaviest]


def _of_layer(layer: LayerCost, metric: str) -> float:
    maps = layer.input_bytes + layer.output_bytes
    if metric == Metric.MACS:
        return layer.macs
    if metric in (Metric.SIZE_BYTES, Metric.PARAMETERS):
        return layer.size_bytes
    return maps + layer.size_bytes if metric == Metric.MEMORY_BYTES else maps
