"""What each choice of a design is thought to cost in quality: a prior by kind, corrected by what was found.

The loss of a design is taken to be a sum over its decisions, w_d phi_d(choice): phi_d is the shape of the loss and w_d
its size, which is learned by ridge regression towards one common size. As bad as any additive model where losses
compound, it orders choices well enough to spend a budget by, and knows something before the first trial.

The shapes: pruning removes what ranks lowest first, so the loss grows with the square of the share removed. Rounding to
b bits adds noise of amplitude 2^-b. It must not know samplers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import getitem

import numpy as np
from numpy.typing import NDArray

from search_spaces.design import METHOD_KINDS, Kind
from search_spaces.precision import parse_precision
from search_spaces.space import Decision

Numbers = NDArray[np.float64]

RIDGE = 2.0
"""How many trials' worth of evidence the common size of losses counts."""
LEAST_SHARE = 0.02
"""Of the common size, that a decision is thought to cost at least: no measured loss is noise or luck."""
FEWEST_BITS = 2


class Sensitivity:
    """Learns from (choice indices, quality) pairs; quality is higher where better, on any scale.

    `shapes` are the phi of each decision, where others are known than `prior_shape`.
    """

    def __init__(self, decisions: Sequence[Decision], shapes: Sequence[Numbers] | None = None) -> None:
        self._shapes = [prior_shape(decision) for decision in decisions] if shapes is None else list(shapes)
        self._plain = [shape.tolist() for shape in self._shapes]  # single numbers come faster out of lists
        size = len(decisions) + 1
        self._products = np.zeros((size, size))
        self._targets = np.zeros(size)

    def add(self, indices: Sequence[int], quality: float) -> None:
        row = np.array([1.0, *map(getitem, self._plain, indices)])
        self._products += row[:, None] * row
        self._targets += quality * row

    def add_all(self, rows: NDArray[np.int64], qualities: Numbers) -> None:
        """Designs as choice indices, (designs, decisions), and the quality of each, (designs,)."""
        shapes = [shape[column] for shape, column in zip(self._shapes, rows.T, strict=True)]
        features = np.stack([np.ones(len(rows)), *shapes], axis=1)
        self._products += features.T @ features
        self._targets += features.T @ qualities

    def losses(self) -> list[Numbers]:
        """What each choice of each decision is thought to cost; in the unit of quality once trials were added."""
        return [size * shape for size, shape in zip(self.sizes(), self._shapes, strict=True)]

    def sizes(self) -> Numbers:
        """W of each decision, (decisions,); all 1 before anything is known."""
        count = self._products[0, 0]
        if count < 2 or len(self._shapes) == 0:
            return np.ones(len(self._shapes))
        mean, mean_target = self._products[0, 1:] / count, self._targets[0] / count
        products = self._products[1:, 1:] - count * np.outer(mean, mean)
        targets = -(self._targets[1:] - count * mean * mean_target)
        common = max(targets.sum(), 0.0) / (products.sum() + 1e-9)
        if not common > 0:
            return np.ones(len(self._shapes))
        strength = RIDGE * np.maximum(np.diag(products).mean() / count, 1e-9)
        found = common + np.linalg.solve(
            products + strength * np.eye(len(targets)), targets - products @ np.full(len(targets), common)
        )
        sizes: Numbers = np.maximum(found, LEAST_SHARE * common)
        return sizes

    def state(self) -> dict[str, Numbers]:
        """What was added, as sums, for `restore`."""
        return {"products": self._products.copy(), "targets": self._targets.copy()}

    def restore(self, state: Mapping[str, object]) -> None:
        """Take over what another one of the same decisions was given.

        Raises:
            KeyError, ValueError: it is of others.
        """
        for name, array in (("products", self._products), ("targets", self._targets)):
            found = state[name]
            if not isinstance(found, np.ndarray) or found.shape != array.shape:
                raise ValueError(f"{name} are of other decisions")
            array[:] = found


def prior_shape(decision: Decision) -> Numbers:
    """Phi of each choice, (choices,): 0 where nothing is lost, about 1 where most is."""
    if decision.kind in METHOD_KINDS:
        return np.zeros(len(decision.choices))
    shape: Numbers
    match decision.kind:
        case Kind.CHANNELS:
            counts = np.array(decision.choices, dtype=np.float64)
            shape = (1 - counts / counts.max()) ** 2
        case Kind.PRECISION:
            shape = np.array([_noise_of(str(choice)) for choice in decision.choices])
        case Kind.WEIGHT_BITS | Kind.ACTIVATION_BITS:
            shape = np.array([_noise(int(choice)) for choice in decision.choices])
        case _:  # G, or g: more channels a group mix more, and cost more
            sizes = np.array(decision.choices, dtype=np.float64)
            mixing = sizes / sizes.max() if decision.kind is Kind.GROUP_SIZE else sizes.min() / sizes
            shape = 0.1 * (1 - mixing)
    shape -= shape.min()
    return shape


def _noise(bits: int) -> float:
    return float(2.0 ** (FEWEST_BITS - bits))


def _noise_of(precision: str) -> float:
    read = parse_precision(precision)
    return (_noise(read.weight_bits) + _noise(read.activation_bits)) / 2
