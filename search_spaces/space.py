"""The Space: every decision with its choices, as realised values of one network on one device.

It must not know where the choices come from (`build_space`), nor how designs are proposed or tried.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import getitem

from search_spaces.apply import Structure, structure_of
from search_spaces.design import EVERY_LAYER, METHOD_KINDS, Design, Kind, Value
from search_spaces.network import Network

Indices = tuple[int, ...]
"""A design as the number of its choice for each decision, in the order of the decisions."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One thing that may be varied.

    Attributes:
        name: `<kind>/<target>`.
        choices: channels, bits and numbers of groups descending, so that index 0 is nearest to the base; precisions in
            the order given, and methods; group sizes ascending. Only one choice where it differs from the base's value.
    """

    name: str
    kind: Kind
    target: str
    choices: tuple[Value, ...]

    @property
    def is_group_of_all(self) -> bool:
        """Whether it is the size, or the number, of groups of all layers together."""
        return self.target == EVERY_LAYER and self.kind in (Kind.GROUP_SIZE, Kind.GROUPS)


@dataclass(frozen=True)
class Space:
    """What may be varied of a network.

    Attributes:
        network: the base.
        decisions: channels, precisions, bits and group sizes, each in the network's order, and methods.
        uniform: the baseline: every ratio with every precision, the same everywhere, at the base's group sizes, made
            by the first methods.
    """

    network: Network
    decisions: tuple[Decision, ...]
    uniform: tuple[Design, ...]
    _indices: tuple[dict[Value | None, int], ...] = field(init=False, repr=False, compare=False)
    _base: tuple[Value | None, ...] = field(init=False, repr=False, compare=False)
    _named_base: dict[str, Value | None] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        tables = tuple({value: index for index, value in enumerate(d.choices)} for d in self.decisions)
        object.__setattr__(self, "_indices", tables)
        base = {decision.name: base_value(self.network, decision) for decision in self.decisions}
        object.__setattr__(self, "_named_base", base)
        object.__setattr__(self, "_base", tuple(base.values()))

    def size(self) -> int:
        """Number of designs."""
        return math.prod(len(decision.choices) for decision in self.decisions)

    @cached_property
    def chooses_methods(self) -> bool:
        """Whether designs differ in more than what their graphs show."""
        return any(decision.kind in METHOD_KINDS and len(decision.choices) > 1 for decision in self.decisions)

    @cached_property
    def chooses_groups(self) -> bool:
        """Whether one size or one number of groups is chosen for all layers, each of which gets the nearest it can."""
        return any(decision.is_group_of_all and len(decision.choices) > 1 for decision in self.decisions)

    def contains(self, design: Design) -> bool:
        """Whether the design is a point of this space."""
        try:
            self.indices_of(design)
        except ValueError:
            return False
        return True

    def design_at(self, indices: Sequence[int]) -> Design:
        """The design with these choices. It names only what differs from the base.

        Raises:
            IndexError: a choice index is out of range.
        """
        if any(index < 0 for index in indices):
            raise IndexError("choice indices start at 0")
        chosen = [d.choices[index] for d, index in zip(self.decisions, indices, strict=True)]
        named = zip(self.decisions, chosen, self._base, strict=True)
        return Design.of({decision.name: value for decision, value, base in named if value != base})

    def indices_of(self, design: Design) -> Indices:
        """Inverse of `design_at`; a decision that the design does not name has the base's value.

        Raises:
            ValueError: the design is not a point of this space; the message names the decision.
        """
        values = {**self._named_base, **dict(design.items_)}
        if len(values) == len(self.decisions):
            try:  # of thousands of designs nearly all are right: what is wrong with others is told below
                return tuple(map(getitem, self._indices, values.values()))
            except KeyError:
                pass
        raise ValueError(self._fault_of(values))

    def _fault_of(self, values: Mapping[str, Value | None]) -> str:
        for decision, table in zip(self.decisions, self._indices, strict=True):
            value = values[decision.name]
            if value not in table:
                return f"{decision.name}: {value!r} is none of {', '.join(map(str, decision.choices))}"
        return f"{next(name for name in values if name not in self._named_base)} is no decision of this space"


def base_value(network: Network, decision: Decision) -> Value | None:
    """What holds when a design does not name the decision; None where layers differ, and of methods."""
    structure = structure_of(network)
    match decision.kind:
        case kind if kind in METHOD_KINDS:
            return None
        case Kind.CHANNELS:
            return structure.coupling.groups[structure.group_index[decision.target]].size
        case Kind.GROUP_SIZE | Kind.GROUPS:
            return _base_groups(structure, decision)
        case _:
            values = {
                _base_precision_value(structure, layer, decision.kind)
                for layer in structure.layers_of_target[decision.target]
            }
            return values.pop() if len(values) == 1 else None


def _base_groups(structure: Structure, decision: Decision) -> int | None:
    """Depthwise layers stay that, however many channels are kept; others keep their number of groups, not its size."""
    layer = decision.target
    if decision.kind is Kind.GROUPS or layer not in structure.grouped:
        return 1 if decision.kind is Kind.GROUP_SIZE and structure.grouped == structure.depthwise else None
    if layer in structure.depthwise:
        return 1
    node = structure.layers[layer]
    return len(structure.coupling.atoms[node.inputs[0]]) // node.groups


def _base_precision_value(structure: Structure, layer: str, kind: Kind) -> Value:
    precision = structure.layers[layer].precision
    if kind is Kind.PRECISION:
        return str(precision)
    return precision.weight_bits if kind is Kind.WEIGHT_BITS else precision.activation_bits
