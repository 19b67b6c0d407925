"""What an operator has installed beside Espalier: implementations of its contracts, found by entry points.

A package names them in groups such as `espalier.samplers`; see `docs/extending.md`. A spec only ever says a name.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from typing import Any

_log = logging.getLogger(__name__)


class NotInstalledError(RuntimeError):
    """What a spec names is not in this Python, though it was known when the spec was accepted."""


def with_installed(built_in: Mapping[str, Any], group: str, contract: type) -> dict[str, Any]:
    """The built-in implementations by name, and behind them the installed ones.

    One that cannot be loaded, is none, calls itself otherwise, or has a name that is taken is left out, and the log
    says why: a search that names it is then refused, and everything else goes on.

    Args:
        built_in: by name.
        group: of entry points.
        contract: the class that an implementation has to derive from.
    """
    known = dict(built_in)
    for point in _sorted(entry_points(group=group)):
        if point.name in known:
            _log.warning("%s %r of %s is left out: the name is taken", group, point.name, point.value)
            continue
        try:
            found = point.load()
        except Exception:
            _log.exception("%s %r of %s cannot be loaded", group, point.name, point.value)
            continue
        if not (isinstance(found, type) and issubclass(found, contract)):
            _log.warning("%s %r of %s is left out: it is no %s", group, point.name, point.value, contract.__name__)
            continue
        info = getattr(found, "info", None)
        if info is not None and info.name != point.name:
            _log.warning("%s %r of %s is left out: it calls itself %r", group, point.name, point.value, info.name)
            continue
        known[point.name] = found
    return known


def look_up(kind: str, name: str, installed: Mapping[str, Any]) -> Any:
    """What is installed by that name. Raises `NotInstalledError`, which says what there is."""
    if name not in installed:
        raise NotInstalledError(f"this worker has no {kind} {name!r}; it has {', '.join(sorted(installed))}")
    return installed[name]


def _sorted(points: Iterable[Any]) -> list[Any]:
    return sorted(points, key=lambda point: (point.name, point.value))
