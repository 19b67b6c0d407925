"""Finding a design that was not tried yet, on choice indices: one number per decision."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from search_spaces.space import Indices

Keep = Callable[[Sequence[Indices]], NDArray[np.bool_]]
"""Whether each of some designs keeps its limits."""

STEPS = 64
"""How many steps are walked from a taken design, at most, before the space is searched in order."""
LOOKED_AT = 20_000
"""How many designs of a space are looked at in order, at most, for one that keeps its limits."""
MOST_TOGETHER = 1024


def random_indices(levels: Sequence[int], generator: np.random.Generator) -> Indices:
    """A uniform draw from the whole space. `levels` is the number of choices of each decision."""
    return tuple(int(index) for index in generator.integers(levels))


def unused_near(
    indices: Indices, levels: Sequence[int], taken: Set[Indices], generator: np.random.Generator, keep: Keep
) -> Indices | None:
    """`indices` if it is not in `taken`, otherwise a design near it that is not, and that keeps its limits.

    Near a good design that a sampler proposes again there are good ones: asking the sampler for another draw instead
    finds no better fronts, and costs another draw. Takes at most STEPS steps, and then looks at LOOKED_AT designs that
    are not taken, so that it ends soon in tiny spaces too. None where none of all these keeps its limits.
    """
    for _ in range(STEPS):
        if indices not in taken:
            return indices
        beside = _neighbour(indices, levels, generator)
        if keep([beside])[0]:
            indices = beside
    return next_unused(random_indices(levels, generator), levels, taken, keep)


def next_unused(indices: Indices, levels: Sequence[int], taken: Set[Indices], keep: Keep) -> Indices | None:
    """The first design that is not taken and keeps its limits, from `indices` on in the order of the enumeration."""
    untaken = (one for one in _enumeration(indices, levels) if one not in taken)
    looked_at, together = 0, 1
    while looked_at < LOOKED_AT and (designs := list(islice(untaken, together))):
        kept = keep(designs)
        if kept.any():
            return designs[int(np.argmax(kept))]
        looked_at += together
        together = min(2 * together, MOST_TOGETHER)
    return None


def _enumeration(start: Indices, levels: Sequence[int]) -> Iterator[Indices]:
    """All designs of the space, once, from one of them on; the last decision changes fastest."""
    yield start
    indices = _successor(start, levels)
    while indices != start:
        yield indices
        indices = _successor(indices, levels)


def _neighbour(indices: Indices, levels: Sequence[int], generator: np.random.Generator) -> Indices:
    """One decision moved to the next larger or smaller choice."""
    movable = [position for position, count in enumerate(levels) if count > 1]
    position = movable[int(generator.integers(len(movable)))]
    step = 1 if generator.random() < 0.5 else -1
    moved = indices[position] + step
    if not 0 <= moved < levels[position]:
        moved = indices[position] - step
    return (*indices[:position], moved, *indices[position + 1 :])


def _successor(indices: Indices, levels: Sequence[int]) -> Indices:
    """The next design of the enumeration in which the last decision changes fastest; the first after the last."""
    digits = list(indices)
    for position in reversed(range(len(digits))):
        digits[position] = (digits[position] + 1) % levels[position]
        if digits[position]:
            break
    return tuple(digits)
