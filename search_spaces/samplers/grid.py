"""The grid: every design of a small space in a fixed order, an even coarse grid of a large one."""

from __future__ import annotations

from collections.abc import Sequence, Set
from itertools import count

from search_spaces.samplers.base import ToldTrial
from search_spaces.samplers.indexed import IndexedSampler
from search_spaces.samplers.unused import next_unused
from search_spaces.sensitivity import Sensitivity
from search_spaces.space import Indices, Space
from search_spaces.spec import SearchSpec

GOLDEN = (5**0.5 - 1) / 2


class GridSampler(IndexedSampler):
    """Proposes the points of a fixed sequence in order, whatever it is told.

    A space of no more designs than the budget has trials is enumerated, the last decision changing fastest. A full
    grid of a larger one would spend the budget on the last few decisions, so that the sequence starts with a
    rank-1 lattice of about the budget's size instead (Korobov 1959): each decision runs through its choices evenly,
    all of them at once, each with a stride of its own. After it comes the enumeration.
    """

    def __init__(self, spec: SearchSpec, space: Space) -> None:
        super().__init__(spec, space)
        points = spec.budget.trials
        self._lattice = _lattice_size(points) if self._size > points else 0
        self._strides = _lattice_strides(self._lattice, len(self._levels)) if self._lattice else ()
        self._cursor = 0
        self._prior = Sensitivity(space.decisions).losses()
        self._repairs: dict[int, Indices | None] = {}

    def _learn(self, trial: ToldTrial, indices: Indices) -> None:
        # What was told from the start of the sequence on is never looked at again, so that asking stays cheap.
        while self._cursor < self._lattice + self._size and self._kept_point(self._cursor) in self._told:
            self._cursor += 1

    def _propose(self, number: int, taken: Set[Indices], running: Sequence[Indices]) -> Indices | None:
        for position in range(self._cursor, self._lattice):
            point = self._kept_point(position)
            if point is not None and point not in taken:
                return point
        left = max(self._cursor - self._lattice, 0)
        return next_unused(_digits(left % self._size, self._levels), self._levels, taken, self._foreseen.keep)

    def _kept_point(self, position: int) -> Indices | None:
        """A point of the sequence; one of the lattice repaired by what is thought of choices before any trial."""
        point = self._point(position)
        if position >= self._lattice:
            return point
        if position not in self._repairs:
            self._repairs[position] = self._projection(point, self._prior)
        return self._repairs[position]

    def _point(self, position: int) -> Indices:
        if position < self._lattice:
            return tuple(
                position * stride % self._lattice * level // self._lattice
                for stride, level in zip(self._strides, self._levels, strict=True)
            )
        return _digits(position - self._lattice, self._levels)


def _digits(rank: int, levels: Sequence[int]) -> Indices:
    """`rank` written in the mixed radix `levels`, the last digit changing fastest."""
    digits = []
    for level in reversed(levels):
        rank, digit = divmod(rank, level)
        digits.append(digit)
    return tuple(reversed(digits))


def _lattice_size(points: int) -> int:
    """The smallest prime from `points` on, at least 5: a prime number of points has a primitive root."""
    return next(size for size in count(max(points, 5)) if all(size % factor for factor in range(2, int(size**0.5) + 1)))


def _lattice_strides(size: int, decisions: int) -> tuple[int, ...]:
    """Powers of a primitive root of `size`: strides that repeat only after `size` - 1 decisions.

    Of the roots the one nearest to the golden section is taken: neighbouring decisions, one such stride apart,
    are then spread evenly over their plane too.
    """
    candidates = sorted(range(2, size), key=lambda stride: abs(stride - GOLDEN * size))
    factors = [factor for factor in range(2, size) if (size - 1) % factor == 0]
    root = next(c for c in candidates if all(pow(c, factor, size) != 1 for factor in factors if factor < size - 1))
    return tuple(pow(root, power, size) for power in range(decisions))
