"""One spec for several samplers and seeds, so that what they find can be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

_OF_ANY_SAMPLER = ("seed", "seed_uniform", "predictor")
"""Options that stay when the sampler is another one."""


def variants(document: Mapping[str, Any], samplers: Sequence[str], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """The document once for each sampler and seed; where none is given, that of the document.

    A document whose sampler is no object comes back as it is, once, for the service to refuse.
    """
    written = document.get("sampler", {})
    if not isinstance(written, Mapping):
        return [dict(document)]
    names: Sequence[str | None] = samplers or [None]
    numbers: Sequence[int | None] = seeds or [None]
    return [{**document, "sampler": _with(written, name, seed)} for name, seed in product(names, numbers)]


def _with(written: Mapping[str, Any], name: str | None, seed: int | None) -> dict[str, Any]:
    options = dict(written)
    if name is not None and name != written.get("name"):
        options = {option: written[option] for option in _OF_ANY_SAMPLER if option in written}
    if name is not None:
        options["name"] = name
    if seed is not None:
        options["seed"] = seed
    return options
