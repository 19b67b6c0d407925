"""Finding a design that was not tried yet, on choice indices: one number per decision."""

from __future__ import annotations

from collections.abc import Sequence, Set

import numpy as np

Indices = tuple[int, ...]

STEPS = 64
"""How many steps are walked from a taken design, at most, before the space is searched in order."""


def random_indices(levels: Sequence[int], generator: np.random.Generator) -> Indices:
    """A uniform draw from the whole space. `levels` is the number of choices of each decision."""
    return tuple(int(index) for index in generator.integers(levels))


def unused_near(
    indices: Indices, levels: Sequence[int], taken: Set[Indices], generator: np.random.Generator
) -> Indices:
    """`indices` if it is not in `taken`, otherwise a design near it that is not; the space must have one.

    Near a good design that a sampler proposes again there are good ones: asking the sampler for another draw instead
    finds no better fronts, and costs another draw. Takes at most STEPS steps and len(taken) + 1 look-ups, so that it
    ends soon in tiny spaces too.
    """
    for _ in range(STEPS):
        if indices not in taken:
            return indices
        indices = _neighbour(indices, levels, generator)
    return _next_unused(random_indices(levels, generator), levels, taken)


def _neighbour(indices: Indices, levels: Sequence[int], generator: np.random.Generator) -> Indices:
    """One decision moved to the next larger or smaller choice."""
    movable = [position for position, count in enumerate(levels) if count > 1]
    position = movable[int(generator.integers(len(movable)))]
    step = 1 if generator.random() < 0.5 else -1
    moved = indices[position] + step
    if not 0 <= moved < levels[position]:
        moved = indices[position] - step
    return (*indices[:position], moved, *indices[position + 1 :])


def _next_unused(indices: Indices, levels: Sequence[int], taken: Set[Indices]) -> Indices:
    while indices in taken:
        indices = _successor(indices, levels)
    return indices


def _successor(indices: Indices, levels: Sequence[int]) -> Indices:
    """The next design of the enumeration in which the last decision changes fastest; the first after the last."""
    digits = list(indices)
    for position in reversed(range(len(digits))):
        digits[position] = (digits[position] + 1) % levels[position]
        if digits[position]:
            break
    return tuple(digits)
