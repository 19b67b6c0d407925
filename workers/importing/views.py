"""How an imported tensor's axes lie in the network's own: what Reshape, Transpose, Squeeze and Flatten change.

A tensor of the network is (channels, height, width) or (features,), batch aside. A View says that some ONNX tensor
holds the same values with its axes split, merged or in another order. Nothing is computed for that: an operator that
can live with the order works on the tensor itself, and only one that cannot makes the change a node of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Atom:
    """A part of one axis of a network's tensor that no reshape has split.

    Attributes:
        axis: of the tensor; 0 is channels or features.
        place: of this part within the axis, outermost first; parts of one axis are ordered by it.
        size: at least 1.
    """

    axis: int
    place: tuple[int, ...]
    size: int


Group = tuple[Atom, ...]


@dataclass(frozen=True, slots=True)
class View:
    """An ONNX tensor as an arrangement of a network's tensor.

    Attributes:
        source: name of the network's tensor.
        groups: for each axis of the ONNX tensor, after the batch, the atoms that it runs over, outermost first.
        lead: atoms that the first axis runs over behind the batch, as when all pixels of all images become rows.
    """

    source: str
    groups: tuple[Group, ...]
    lead: Group = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Without the first axis."""
        return tuple(math.prod(atom.size for atom in group) for group in self.groups)

    @property
    def whole_shape(self) -> tuple[int, ...]:
        """For a batch of one image."""
        return (math.prod(atom.size for atom in self.lead), *self.shape)

    def of(self, source: str) -> View:
        """The same arrangement of another tensor of the same shape."""
        return replace(self, source=source)


def plain_view(source: str, shape: Sequence[int]) -> View:
    """The tensor as it is."""
    return View(source, tuple((Atom(axis, (), size),) if size > 1 else () for axis, size in enumerate(shape)))


def transposed(view: View, order: Sequence[int]) -> View:
    """`order` is of the axes after the batch, counted from 0."""
    return replace(view, groups=tuple(view.groups[axis] for axis in order))


def reshaped(view: View, shape: Sequence[int]) -> View | None:
    """The view in another shape, with its first axis, which is 1 where that is the batch alone.

    None where an axis would be split so that its parts cannot be told apart.
    """
    atoms = list(merged(tuple(atom for group in (view.lead, *view.groups) for atom in group)))
    groups: list[Group] = []
    for size in shape:
        group: list[Atom] = []
        left = size
        while left > 1:
            if not atoms:
                return None
            atom = atoms.pop(0)
            if left % atom.size:
                if atom.size % left:
                    return None
                atom, rest = _split(atom, left)
                atoms.insert(0, rest)
            group.append(atom)
            left //= atom.size
        groups.append(tuple(group))
    return None if atoms else replace(view, groups=tuple(groups[1:]), lead=groups[0])


def merged(group: Group) -> Group:
    """The same order said with as few atoms as possible."""
    out: list[Atom] = []
    for atom in group:
        out.append(atom)
        while len(out) > 1 and (whole := _join(*out[-2:])) is not None:
            out[-2:] = [whole]
    return tuple(out)


def same_arrangement(first: View, second: View) -> bool:
    """Whether equal places of both tensors are equal places of what they are views of."""
    axes = zip((first.lead, *first.groups), (second.lead, *second.groups), strict=False)
    return len(first.groups) == len(second.groups) and all(merged(a) == merged(b) for a, b in axes)


def is_axis(group: Group, axis: int, size: int) -> bool:
    """Whether a group runs over one whole axis of the tensor, in order."""
    return merged(group) == ((Atom(axis, (), size),) if size > 1 else ())


def shuffle_groups(group: Group, axis: int, size: int) -> int | None:
    """g, when the group runs over an axis split as (g, n) and transposed; None when it is something else."""
    parts = merged(group)
    if len(parts) != 2 or parts[0].size * parts[1].size != size or {part.axis for part in parts} != {axis}:
        return None
    return parts[1].size if parts[1].place < parts[0].place else None


def flat_order(view: View) -> NDArray[np.intp]:
    """For each value of the ONNX tensor, flattened, its position in the network's tensor, flattened. (n,)."""
    atoms = [atom for group in view.groups for atom in group]
    inner = sorted(range(len(atoms)), key=lambda index: (atoms[index].axis, atoms[index].place))
    positions = np.arange(math.prod(atom.size for atom in atoms)).reshape([atoms[index].size for index in inner])
    order: NDArray[np.intp] = positions.transpose(np.argsort(inner)).reshape(-1)
    return order


def _split(atom: Atom, outer: int) -> tuple[Atom, Atom]:
    first = replace(atom, place=(*atom.place, 0), size=outer)
    return first, replace(atom, place=(*atom.place, 1), size=atom.size // outer)


def _join(first: Atom, second: Atom) -> Atom | None:
    """The atom that two neighbours were split from; None where they were not."""
    if first.axis != second.axis or not first.place or not second.place:
        return None
    *parent, last = first.place
    if (*parent, last + 1) != second.place or last != 0:
        return None
    return Atom(first.axis, tuple(parent), first.size * second.size)
