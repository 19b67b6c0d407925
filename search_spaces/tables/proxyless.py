"""Latency tables of ProxylessNAS and Once-for-All: YAML, a block's key to {count, mean, var or std}, in ms.

A table of theirs can lack entries that their own published networks need; whoever uses one has to ask what is missing.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import yaml as pyyaml

from search_spaces.objectives import Metric
from search_spaces.precision import Precision
from search_spaces.tables.blocks import parse_block
from search_spaces.tables.row import TableError, TableRow

MOST_BYTES = 2**24
MOST_ROWS = 100_000
_MS = 1e-3
_DEEPEST = 5
_LONGEST_SCALAR = 300
_Loader: Any = getattr(pyyaml, "CSafeLoader", pyyaml.SafeLoader)


class _PlainLoader(_Loader):  # type: ignore[misc]
    """Refuses keys that come twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [key.value for key, _ in node.value if isinstance(key, pyyaml.ScalarNode)]
        twice = [key for key, times in Counter(keys).items() if times > 1]
        if twice:
            raise TableError([(key[:200], "is there twice; keep one") for key in twice[:20]])
        return super().construct_mapping(node, deep)


def read_proxyless(content: bytes, precision: Precision) -> list[TableRow]:
    """Mean latency of each block, in s.

    Args:
        content: of the file.
        precision: that the blocks were measured in; the file does not say.

    Raises:
        TableError: it is no such table.
    """
    found = _load(content)
    rows: list[TableRow] = []
    faults: list[tuple[str, str]] = []
    for key, value in found.items():
        try:
            rows.append(_row(str(key), value, precision))
        except ValueError as error:
            faults.append((str(key)[:200], str(error)))
    if faults:
        raise TableError(faults)
    return rows


def _load(content: bytes) -> dict[Any, Any]:
    if len(content) > MOST_BYTES:
        raise TableError([("file", f"the table has {len(content):,} bytes; at most {MOST_BYTES:,} are read")])
    try:
        _check_events(content)
        found = pyyaml.load(content, Loader=_PlainLoader)
    except pyyaml.YAMLError as error:
        raise TableError([("file", f"not YAML: {' '.join(str(error).split())[:200]}")]) from None
    except (RecursionError, ValueError) as error:
        if isinstance(error, TableError):
            raise
        raise TableError([("file", f"not YAML that can be read: {str(error)[:100]}")]) from None
    if not isinstance(found, dict) or not found:
        raise TableError([("file", "a mapping of blocks to {count, mean, var or std} was expected")])
    if len(found) > MOST_ROWS:
        raise TableError([("file", f"the table has {len(found):,} rows; at most {MOST_ROWS:,} are read")])
    return found


def _check_events(content: bytes) -> None:
    """Look at the events alone, which cost no memory and cannot recurse."""
    depth = 0
    for event in pyyaml.parse(content, Loader=_Loader):
        depth += isinstance(event, pyyaml.CollectionStartEvent) - isinstance(event, pyyaml.CollectionEndEvent)
        if isinstance(event, pyyaml.AliasEvent):
            raise TableError([("file", "aliases are not read: a few lines of them stand for gigabytes")])
        if depth > _DEEPEST:
            raise TableError([("file", f"nested more than {_DEEPEST} deep")])
        if isinstance(event, pyyaml.ScalarEvent) and len(event.value) > _LONGEST_SCALAR:
            # 1:1:1:... is a number to base 60, and takes YAML the square of its length.
            raise TableError([("file", f"a key or value of more than {_LONGEST_SCALAR} characters")])


def _row(key: str, value: Any, precision: Precision) -> TableRow:
    workload = parse_block(key, precision)
    if not isinstance(value, dict):
        raise ValueError("a mapping with count, mean, and var or std was expected")
    mean = _number(value, "mean")
    if mean <= 0:
        raise ValueError(f"the mean is {mean}; write more than 0 ms")
    deviation = math.sqrt(_number(value, "var")) if "var" in value else _number(value, "std") if "std" in value else 0.0
    count = value.get("count")
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or not 1 <= count < 2**31):
        raise ValueError("count is a whole number of 1 or more")
    return TableRow(key, workload, Metric.LATENCY_S, mean * _MS, deviation * _MS, count)


def _number(value: dict[Any, Any], name: str) -> float:
    found = value.get(name)
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise ValueError(f"{name} is not a number")
    number = float(found) if abs(found) < 1e300 else math.inf
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"{name} is not a finite number of 0 or more")
    return number
