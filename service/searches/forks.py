"""A fork: the spec of a search with some parts replaced, of the same network, data set and space.

It is a search like any other that begins with what its parent has found, see `SearchSpec.warm_start`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from search_spaces.faults import Fault
from search_spaces.parse import parse_spec
from search_spaces.refusals import pointer_to
from search_spaces.spec import SearchSpec
from service.errors import InvalidSpecError
from service.models import Search

_KEPT = ("network", "dataset", "space", "recipe")
"""What trials are of: of anything else nothing could be taken over."""


def fork_spec(parent: Search, changes: Mapping[str, Any]) -> SearchSpec:
    """The spec of a fork.

    Args:
        parent: the search whose spec is taken.
        changes: to it, as a merge patch (RFC 7396): objects are merged, null takes a part back to its default, anything
            else replaces what was there.

    Raises:
        SpecError: it is no spec then.
        InvalidSpecError: it differs in a part that a fork keeps; the faults point at each difference.
    """
    usual = {name: part for name, part in parent.spec.items() if name != "warm_start"}
    merged = merge(usual, changes)
    starts = merged.get("warm_start", [])
    if isinstance(starts, list):
        merged["warm_start"] = [parent.id, *(other for other in starts if other != parent.id)]
    spec = parse_spec(merged)
    _check_kept(SearchSpec.model_validate(parent.spec), spec)
    return spec


def merge(document: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(document) if isinstance(document, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged


def _check_kept(parent: SearchSpec, fork: SearchSpec) -> None:
    before, after = (spec.model_dump(mode="json", include=set(_KEPT)) for spec in (parent, fork))
    faults = [
        Fault(pointer_to(place), f"a fork keeps this as it was: {old}. Leave it out, or submit a new search")
        for place, old in _differences(before, after, ())
    ]
    if faults:
        raise InvalidSpecError("a fork has the network, the data set and the space of its search", faults=faults)


def _differences(before: Any, after: Any, place: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Where two documents differ, as deep as both are objects, and what was there before."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted(before.keys() | after.keys()):
            yield from _differences(before.get(name), after.get(name), (*place, name))
    elif before != after:
        yield place, _shown(before)


def _shown(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
