"""Who is feasible, who is on the front, and how much a front is worth. Values are in each metric's own unit.

It must not know trials or rows: values come as mappings of metric name to number, results are indices.
A point that lacks a metric, or whose value is not finite, is on no front and adds no hypervolume.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import moocore
import numpy as np
from numpy.typing import NDArray

from search_spaces.objectives import Direction
from search_spaces.spec import LimitSpec, ObjectiveSpec

Values = Mapping[str, float]
Points = NDArray[np.float64]

REFERENCE_MARGIN = 0.1
"""How far the reference point lies beyond the worst values, as a share of their range."""


def violations(values: Values, limits: Sequence[LimitSpec]) -> dict[str, float]:
    """Relative size of each miss by limit, named like `size_bytes.max`; empty where no limit is missed.

    A limit of 0 is missed by the value itself. A metric without a value is not judged; one that is not
    a number misses by infinity.
    """
    missed: dict[str, float] = {}
    for limit in limits:
        value = values.get(limit.metric)
        if value is None:
            continue
        if limit.max is not None:
            name, bound, excess = f"{limit.metric}.max", limit.max, value - limit.max
        else:
            bound = limit.min if limit.min is not None else -math.inf
            name, excess = f"{limit.metric}.min", bound - value
        if math.isnan(value):
            missed[name] = math.inf
        elif excess > 0:  # of two limits of one metric the tighter counts
            missed[name] = max(missed.get(name, 0.0), excess / (abs(bound) or 1.0))
    return missed


def is_feasible(values: Values, limits: Sequence[LimitSpec]) -> bool:
    """Whether every limited metric is known and within its limits."""
    return all(limit.metric in values for limit in limits) and not violations(values, limits)


def front_indices(values: Sequence[Values], objectives: Sequence[ObjectiveSpec]) -> list[int]:
    """Indices of the points that no other point dominates, ascending; equal points stay together."""
    indices, points = _finite_points(values, objectives)
    if not indices:
        return []
    keep = moocore.is_nondominated(points, keep_weakly=True)
    return [index for index, kept in zip(indices, keep, strict=True) if kept]


def front_rows(table: Points, objectives: Sequence[ObjectiveSpec]) -> list[int]:
    """As `front_indices`, of (points, objectives) whose values are all finite: of tens of thousands in milliseconds."""
    if not len(table):
        return []
    return [int(row) for row in np.flatnonzero(moocore.is_nondominated(table * _signs(objectives), keep_weakly=True))]


def reference_point(values: Sequence[Values], objectives: Sequence[ObjectiveSpec]) -> dict[str, float]:
    """The worst value of each objective, moved a tenth of the range beyond.

    Raises:
        ValueError: no point has a finite value for every objective.
    """
    _, points = _finite_points(values, objectives)
    if not len(points):
        raise ValueError("no point has a finite value for every objective")
    worst, best = points.max(axis=0), points.min(axis=0)
    spans = np.where(worst > best, worst - best, np.where(worst != 0, np.abs(worst), 1.0))
    moved = (worst + REFERENCE_MARGIN * spans) * _signs(objectives)
    return {str(objective.metric): float(value) for objective, value in zip(objectives, moved, strict=True)}


def hypervolume(values: Sequence[Values], objectives: Sequence[ObjectiveSpec], reference: Values) -> float:
    """Volume that the points dominate, up to the reference point, in the product of the metrics' units."""
    _, points = _finite_points(values, objectives)
    return _volume(points, _as_point(reference, objectives))


def knee(values: Sequence[Values], objectives: Sequence[ObjectiveSpec]) -> int | None:
    """The front's member that gives up least for what it gains; None without a front.

    With each objective scaled to [0, 1] over the front, the point farthest below the plane through the
    extremes, which is the one with the least sum (Das 1999, without the boundary intersection).
    """
    front = front_indices(values, objectives)
    if not front:
        return None
    points = _scaled(_points([values[index] for index in front], objectives))
    return front[int(np.argmin(points.sum(axis=1)))]


def spread(values: Sequence[Values], objectives: Sequence[ObjectiveSpec], count: int) -> list[int]:
    """Up to `count` members of the front, most wanted first: the knee, the extremes, then what adds most volume."""
    front = front_indices(values, objectives)
    if not front or count < 1:
        return []
    members = [values[index] for index in front]
    points = _scaled(_points(members, objectives))
    wanted = [front.index(best) for best in [knee(values, objectives)] if best is not None]
    wanted += [int(np.lexsort((points.sum(axis=1), points[:, axis]))[0]) for axis in range(len(objectives))]
    chosen = list(dict.fromkeys(wanted))[:count]
    reference = np.full(len(objectives), 1 + REFERENCE_MARGIN)
    left = [index for index in range(len(front)) if index not in chosen]
    while left and len(chosen) < count:
        volumes = [_volume(points[[*chosen, index]], reference) for index in left]
        chosen.append(left.pop(int(np.argmax(volumes))))
    return [front[index] for index in chosen]


def _finite_points(values: Sequence[Values], objectives: Sequence[ObjectiveSpec]) -> tuple[list[int], Points]:
    """Points to be minimised, of those that have all objectives, and their indices."""
    metrics = [objective.metric for objective in objectives]
    indices = [i for i, point in enumerate(values) if all(math.isfinite(point.get(m, math.nan)) for m in metrics)]
    return indices, _points([values[index] for index in indices], objectives)


def _points(values: Sequence[Values], objectives: Sequence[ObjectiveSpec]) -> Points:
    table = np.array([[point[o.metric] for o in objectives] for point in values], dtype=np.float64)
    signed: Points = table.reshape(len(values), len(objectives)) * _signs(objectives)
    return signed


def _as_point(values: Values, objectives: Sequence[ObjectiveSpec]) -> Points:
    point: Points = _points([values], objectives)[0]
    return point


def _signs(objectives: Sequence[ObjectiveSpec]) -> Points:
    return np.array([-1.0 if o.direction is Direction.MAXIMIZE else 1.0 for o in objectives])


def _scaled(points: Points) -> Points:
    """Each objective over its range; 0 is best. An objective that is the same everywhere becomes 0."""
    low, span = points.min(axis=0), np.ptp(points, axis=0)
    scaled: Points = (points - low) / np.where(span > 0, span, 1.0)
    return scaled


def _volume(points: Points, reference: Points) -> float:
    inside = points[(points < reference).all(axis=1)]
    return float(moocore.hypervolume(inside, ref=reference)) if len(inside) else 0.0
