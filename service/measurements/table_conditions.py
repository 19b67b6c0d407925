"""Under which conditions a row of a table was taken: what its columns and the settings of its import say together."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from typing import Any, TypeAlias

from service.measurements.actions import Stated
from service.measurements.conditions import canonical_json
from service.measurements.table_settings import NAME, TableSettings

CONDITION_COLUMNS = ("device", "fingerprint", "protocol", "batch", "threads", "runtime")
Told: TypeAlias = tuple[str | None, ...]
LONGEST_JSON = 2**16
_LARGEST_COUNT = 2**31 - 1


class UnfitError(Exception):
    """What a row says of its conditions cannot be; of which column, and why."""

    def __init__(self, column: str, message: str) -> None:
        super().__init__(message)
        self.column, self.message = column, message


def state(told: Told, devices: Mapping[str, Mapping[str, Any]], settings: TableSettings) -> Stated:
    """The conditions that columns and settings tell together.

    Args:
        told: what the columns say, None where they say nothing.
        devices: present fingerprint of each that is known, by name. It is that of rows which tell none.
        settings: what holds where the columns say nothing.

    Raises:
        UnfitError: they do not fit together, or something is missing.
    """
    device, fingerprint, protocol, batch, threads, runtime = told
    name = device or settings.device
    if name is None:
        raise UnfitError("device", "no device is named")
    if len(name) > 100 or not re.fullmatch(NAME, name):
        raise UnfitError(
            "device", "a name has letters, digits, spaces and . _ -, begins with one of the first two, at most 100"
        )
    if name not in devices and not settings.new_device:
        raise UnfitError("device", unknown_device(name, devices))
    now = devices.get(name, {})
    stated = {} if protocol is None else _object("protocol", protocol)
    for key, text, given in (
        ("batch", batch, settings.batch),
        ("threads", threads, settings.threads),
        ("runtime", runtime, settings.runtime),
    ):
        value = given if text is None else text if key == "runtime" else _whole(key, text)
        if value is None and key != "runtime" and key not in stated:
            raise UnfitError(key, f"say `{key}` in the protocol, in a column, or of the whole file")
        # What the file's protocol says is not put right by the settings.
        if value is not None and (text is not None or key not in stated) and stated.setdefault(key, value) != value:
            raise UnfitError(key, f"is {value}, and {str(stated[key])[:40]} in the protocol")
        if key != "runtime" and not _is_whole(stated[key]):
            raise UnfitError("protocol", f"{key} is {str(stated[key])[:40]}; write a whole number of 1 or more")
    return name, now if fingerprint is None else _object("fingerprint", fingerprint), stated


def unknown_device(name: str, devices: Collection[str]) -> str:
    known = ", ".join(sorted(devices)) or "none yet"
    return f"no device {name[:40]!r} was announced (known: {known[:200]}); say new_device to add it"


def _object(column: str, text: str) -> dict[str, Any]:
    try:
        if len(text) > LONGEST_JSON:
            raise ValueError(f"more than {LONGEST_JSON:,} characters")
        found = json.loads(text)
        canonical = canonical_json(found)
        if not isinstance(found, dict):
            raise ValueError("not an object")
        if "\\u0000" in canonical:
            raise ValueError("a NUL cannot be stored")
    except (ValueError, RecursionError) as error:
        raise UnfitError(column, f"a JSON object was expected ({str(error)[:60]})") from None
    return found


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _LARGEST_COUNT


def _whole(column: str, text: str) -> int:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (1 <= value <= _LARGEST_COUNT) or value != int(value):
        raise UnfitError(column, f"{text[:20]} is not a whole number of 1 or more")
    return int(value)
