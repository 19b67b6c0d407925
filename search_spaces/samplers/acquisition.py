"""What trying a design is expected to be worth, from what is predicted of it: by how much it would improve the front.

With two objectives that is the expected hypervolume improvement (Emmerich et al. 2006), by quadrature over what is not
known and exact in what is; with one it is the expected improvement; with more it is that of a weighted Chebyshev
distance, of weights drawn for each trial (ParEGO, Knowles 2006). Everything here is minimised.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

NODES = 5


def quadrature(unknown: int) -> tuple[Numbers, Numbers]:
    """Standard normal points, (points, unknown), and their weights, (points,): Gauss and Hermite's, as a product."""
    if unknown == 0:
        return np.zeros((1, 0)), np.ones(1)
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES if unknown == 1 else 3)
    points = np.array(list(product(nodes, repeat=unknown)))
    shares = np.array([np.prod(chosen) for chosen in product(weights / weights.sum(), repeat=unknown)])
    return points, shares


def hypervolume_improvement(points: Numbers, front: Numbers, reference: Numbers) -> Numbers:
    """By how much each of `points` alone would enlarge what `front` dominates up to `reference`, two objectives.

    Args:
        points: (..., 2).
        front: (members, 2), non-dominated, by their first objective ascending; all better than the reference.
        reference: (2,).
    """
    edges = np.concatenate([[-np.inf], front[:, 0], [reference[0]]])
    # Between two members what is free lies below the second objective of the left one.
    ceilings = np.concatenate([[reference[1]], front[:, 1]])
    left = np.maximum(points[..., 0, None], edges[:-1])
    widths = np.maximum(edges[1:] - left, 0)
    heights = np.maximum(ceilings - points[..., 1, None], 0)
    gained: Numbers = (widths * heights).sum(axis=-1)
    return gained


def chebyshev_improvement(points: Numbers, front: Numbers, reference: Numbers, weights: Numbers) -> Numbers:
    """By how much each of `points` lies below the best of the front in the weighted Chebyshev sense, (...)."""
    spans = np.maximum(reference - front.min(axis=0), 1e-12) if len(front) else np.ones(len(reference))
    low = front.min(axis=0) if len(front) else reference - 1

    def distance(values: Numbers) -> Numbers:
        scaled = weights * (values - low) / spans
        whole: Numbers = scaled.max(axis=-1) + 0.05 * scaled.sum(axis=-1)
        return whole

    best = float(distance(front).min()) if len(front) else float(distance(reference[None])[0])
    improvement: Numbers = np.maximum(best - distance(points), 0)
    return improvement


def non_dominated(points: Numbers) -> NDArray[np.bool_]:
    """Which of (points, objectives) no other dominates; of equal points the first."""
    order = np.lexsort(points.T[::-1])
    kept = np.zeros(len(points), dtype=np.bool_)
    if points.shape[1] == 2:
        second = points[order, 1]
        kept[order] = second < np.concatenate([[np.inf], np.minimum.accumulate(second)[:-1]])
        return kept
    members: list[int] = []
    for place in order:
        others = points[members]
        if not (others <= points[place]).all(axis=1).any():
            members.append(int(place))
            kept[place] = True
    return kept
