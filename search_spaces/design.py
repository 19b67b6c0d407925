"""A Design: one point of a Space. Immutable, hashable, JSON both ways.

A design says what differs from the base network as `decision name -> value`, where a decision's name
is `<kind>/<target>`: `channels/block3.pointwise: 48`, `precision/block3: "w8a8"`,
`group_size/block3.depthwise: 2`. A decision that is not named keeps the base's value. A design may also say
how it is made, not only what it is: `importance/network: "l2"` is a method of the whole network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Value = int | str


class Kind(StrEnum):
    """What a decision varies, and what its target names."""

    CHANNELS = "channels"  # target: a coupled channel group; value: channels kept
    PRECISION = "precision"  # target: a block or a layer; value: a precision such as "w8a8"
    WEIGHT_BITS = "weight_bits"  # target: a layer; value: bits
    ACTIVATION_BITS = "activation_bits"  # target: a layer, meaning its input tensor; value: bits
    GROUP_SIZE = "group_size"  # target: a depthwise or grouped conv, or the network; value: G, channels per group
    GROUPS = "groups"  # target: the network; value: g, groups of each depthwise or grouped conv
    IMPORTANCE = "importance"  # target: the network; value: what channels are ranked by
    CALIBRATION = "calibration"  # target: the network; value: how ranges of activations are told
    ACTIVATION_CODEC = "activation_codec"  # target: the network; value: how activation maps are coded in memory


METHOD_KINDS = frozenset({Kind.IMPORTANCE, Kind.CALIBRATION, Kind.ACTIVATION_CODEC})
"""What a design is made by: of the whole network, and nothing that its graph shows."""

METHOD_TARGET = "network"

EVERY_LAYER = METHOD_TARGET
"""What a group size or a number of groups is of that holds for every conv which has groups."""


def decision_name(kind: Kind, target: str) -> str:
    return f"{kind}/{target}"


def split_decision_name(name: str) -> tuple[Kind, str]:
    """Inverse of `decision_name`.

    Raises:
        ValueError: the name has no known kind in front.
    """
    word, slash, target = name.partition("/")
    kind = _KINDS.get(word)
    if not slash or not target or kind is None:
        raise ValueError(f"{name!r} is not a decision: write <kind>/<target>, kind one of {', '.join(Kind)}")
    return kind, target


_KINDS = {str(kind): kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class Design(Mapping[str, Value]):
    """Values by decision name, kept sorted by name so that equal designs are equal objects."""

    items_: tuple[tuple[str, Value], ...]

    @classmethod
    def of(cls, values: Mapping[str, Value]) -> Design:
        return cls(tuple(sorted(values.items())))

    def __getitem__(self, name: str) -> Value:
        for key, value in self.items_:
            if key == name:
                return value
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return (key for key, _ in self.items_)

    def __len__(self) -> int:
        return len(self.items_)

    def to_json(self) -> dict[str, Value]:
        return dict(self.items_)


def design_from_json(data: Any) -> Design:
    """Read what `Design.to_json` wrote, or a user's hand-written design.

    Raises:
        ValueError: it is not an object of decision names to whole numbers or strings.
    """
    if not isinstance(data, Mapping):
        raise ValueError("a design is an object of decision names to values")
    for name, value in data.items():
        split_decision_name(str(name))
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError(f"{name}: {value!r} is neither a whole number nor a string")
    return Design.of(data)


def designs_from_json(many: Iterable[Any]) -> list[Design]:
    """Thousands of designs, each read as `design_from_json` reads it. What they have in common is checked, and is, one.

    Raises:
        ValueError: one of them is no design.
    """
    pairs: dict[tuple[str, Value], tuple[str, Value]] = {}
    return [_of_known(data, pairs) or _noted(design_from_json(data), pairs) for data in many]


def _of_known(data: Any, pairs: Mapping[tuple[str, Value], tuple[str, Value]]) -> Design | None:
    """None where there is something in it that was not checked yet."""
    if not isinstance(data, dict) or not _PLAIN.issuperset(map(type, data.values())):  # True would be taken for 1
        return None
    try:
        return Design(tuple(sorted([pairs[pair] for pair in data.items()])))
    except KeyError:
        return None


def _noted(design: Design, pairs: dict[tuple[str, Value], tuple[str, Value]]) -> Design:
    pairs.update((pair, pair) for pair in design.items_)
    return design


_PLAIN = frozenset((int, str))
