"""Which layers a spec's include and exclude globs mean, with a fault for each glob that means none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

Faults = list[tuple[str, str]]
"""(JSON pointer into the spec, message) pairs."""

MAX_SUGGESTIONS = 20
"""Faults in one spec that get close matches; finding them is slow, and a hostile spec has many globs."""


@dataclass(frozen=True, slots=True)
class LayerSelection:
    """Names of layers, in the network's order.

    Attributes:
        included: matched by an include glob.
        excluded: matched by an exclude glob.
        by_glob: for each include glob the layers that it matches.
    """

    included: tuple[str, ...]
    excluded: tuple[str, ...]
    by_glob: tuple[tuple[str, ...], ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """Included and not excluded."""
        return tuple(name for name in self.included if name not in self.excluded)


def select_layers(
    names: Sequence[str], pointer: str, layers: Sequence[str], exclude: Sequence[str], faults: Faults
) -> LayerSelection:
    """Match the globs, and append to `faults` those that match no layer.

    Args:
        names: all layers, in the network's order.
        pointer: to the part of the spec that has the globs.
        layers: include globs.
        exclude: exclude globs.
        faults: appended to in place.
    """
    included = [_matches(glob, names, f"{pointer}/layers/{i}", faults) for i, glob in enumerate(layers)]
    excluded = [_matches(glob, names, f"{pointer}/exclude/{i}", faults) for i, glob in enumerate(exclude)]
    return LayerSelection(_union(names, included), _union(names, excluded), tuple(included))


def _matches(glob: str, names: Sequence[str], pointer: str, faults: Faults) -> tuple[str, ...]:
    matched = tuple(name for name in names if fnmatchcase(name, glob))
    if not matched:
        close = get_close_matches(glob, names, n=3, cutoff=0.5) if len(faults) < MAX_SUGGESTIONS else []
        examples = ", ".join(close or [*names[:3], "..."])
        faults.append((pointer, f"{glob!r} matches no layer; layers are called {examples}"))
    return matched


def _union(names: Sequence[str], parts: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    wanted = {name for part in parts for name in part}
    return tuple(name for name in names if name in wanted)
