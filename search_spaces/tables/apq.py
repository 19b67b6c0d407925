"""APQ's tables (Wang et al., arXiv 2006.08509): JSON, one row for each conv in each pair of bits.

Keys are `(cin,cout,insize,k,stride,pad,groups)-W4A8`, values {energy: mJ, latency: ms}
of a conv by itself, its input square.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any

from search_spaces.costs import Workload, WorkloadKind
from search_spaces.network import Op
from search_spaces.objectives import Metric
from search_spaces.precision import Precision, parse_precision
from search_spaces.signatures import workload_of
from search_spaces.tables.row import TableError, TableRow

MOST_BYTES = 2**26
MOST_ROWS = 100_000
_KEY = re.compile(r"\(\s*([0-9]{1,6}(?:\s*,\s*[0-9]{1,6}){6})\s*\)-(W[0-9]{1,2}A[0-9]{1,2})")
_UNITS = {"energy": (Metric.ENERGY_J, 1e-3), "latency": (Metric.LATENCY_S, 1e-3)}


def read_apq(content: bytes) -> list[TableRow]:
    """Energy in J and latency in s of each conv in each pair of bits.

    Raises:
        TableError: it is no such table.
    """
    rows: list[TableRow] = []
    faults: list[tuple[str, str]] = []
    for key, value in _load(content).items():
        try:
            rows += _rows(key, value)
        except ValueError as error:
            faults.append((key[:200], str(error)))
    if faults:
        raise TableError(faults)
    return rows


def conv_layer(
    channels: tuple[int, int], size: int, kernel: int, stride: int, padding: int, groups: int, precision: Precision
) -> Workload:
    """A square conv of (input, output) channels as a layer.

    Raises:
        ValueError: there is no such conv.
    """
    out = (size + 2 * padding - kernel) // stride + 1 if stride else 0
    if min(*channels, size, kernel, stride, groups, out) < 1 or channels[0] % groups or channels[1] % groups:
        raise ValueError("there is no such conv: sizes are 1 or more, and groups divide the channels")
    described = {
        "layer": str(Op.CONV),
        "input": [channels[0], size, size],
        "output": [channels[1], out, out],
        "kernel": [kernel, kernel],
        "stride": [stride, stride],
        "dilation": [1, 1],
        "padding": [padding] * 4,
        "groups": groups,
        "precision": str(precision),
    }
    return workload_of(WorkloadKind.LAYER, described)


def _load(content: bytes) -> dict[str, Any]:
    if len(content) > MOST_BYTES:
        raise TableError([("file", f"the table has {len(content):,} bytes; at most {MOST_BYTES:,} are read")])
    try:
        found = json.loads(content, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        if isinstance(error, TableError):
            raise
        raise TableError([("file", f"not JSON: {str(error)[:100]}")]) from None
    if not isinstance(found, dict) or not found:
        raise TableError([("file", "an object of convs to {energy, latency} was expected")])
    if len(found) > MOST_ROWS:
        raise TableError([("file", f"the table has {len(found):,} rows; at most {MOST_ROWS:,} are read")])
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = [key for key, times in Counter(key for key, _ in pairs).items() if times > 1]
        raise TableError([(key[:200], "is there twice; keep one") for key in twice[:20]])
    return found


def _rows(key: str, value: Any) -> list[TableRow]:
    match = _KEY.fullmatch(key)
    if match is None:
        raise ValueError("write (cin,cout,insize,k,stride,pad,groups)-W<bits>A<bits>")
    inputs, outputs, size, kernel, stride, padding, groups = (int(part) for part in match[1].split(","))
    precision = parse_precision(match[2].lower())
    workload = conv_layer((inputs, outputs), size, kernel, stride, padding, groups, precision)
    if not isinstance(value, dict) or not value.keys() & _UNITS.keys():
        raise ValueError("an object with energy in mJ and latency in ms was expected")
    return [
        TableRow(f"{key} {name}", workload, metric, _number(value[name], name) * factor)
        for name, (metric, factor) in _UNITS.items()
        if name in value
    ]


def _number(found: Any, name: str) -> float:
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise ValueError(f"{name} is not a number")
    if not (0 < found < 1e300) or not math.isfinite(found):
        raise ValueError(f"{name} is {found}; write a finite number above 0")
    return float(found)
