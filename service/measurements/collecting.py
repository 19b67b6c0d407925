"""Rows of a file become figures in base units, of workloads and under conditions that are written down once.

Nothing is stored here. What is wrong is collected by row; a value is looked at once however many rows have it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import fields
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from search_spaces.costs import WorkloadKind
from search_spaces.faults import Fault
from search_spaces.objectives import DEVICE_METRICS, Metric, Provenance
from service.measurements.chunk import Chunk
from service.measurements.collected import Collected
from service.measurements.columns import ABSENT, NO_TIME, Texts, numbers, texts, times
from service.measurements.faults import MOST_NAMED, RowFaults, refuse_table
from service.measurements.flat_reading import FlatFile, ValueColumn
from service.measurements.table_conditions import CONDITION_COLUMNS
from service.measurements.table_settings import UNITS, TableSettings, Unit
from service.models import utc_now

METRICS = tuple(sorted(DEVICE_METRICS))
ORIGINS = tuple(Provenance)
NO_SAMPLES = "[]"
MOST_SAMPLES = 10_000
LONGEST_SAMPLES = 32 * MOST_SAMPLES
_LARGEST_COUNT = 2**31 - 1
_CLOCKS_DIFFER = timedelta(days=1)
_DIGEST = re.compile(r"[0-9a-f]{64}")


def collect(flat: FlatFile, collected: Collected) -> None:
    """Take all rows of a file.

    Raises:
        InvalidTableError: the file as a whole is of no use, or does not say what has to be known.
    """
    ask_for_missing(flat.names, collected.settings)
    for batch in flat.batches:
        _take(batch, flat, collected)


def ask_for_missing(names: Sequence[str], settings: TableSettings) -> None:
    """Ask for everything at once that neither a column nor the settings say.

    Raises:
        InvalidTableError: something is missing.
    """
    has_protocol = "protocol" in names
    wanted = {
        "device": "device" not in names,
        "batch": "batch" not in names and not has_protocol,
        "threads": "threads" not in names and not has_protocol,
        "count": "count" not in names,
        "provenance": "provenance" not in names and "origin" not in names,
    }
    why = {
        "device": "which device the figures are of",
        "batch": "how many images one inference is of",
        "threads": "how many threads the runtime could use; 1 where there is no such thing",
        "count": "how many values each figure is of; 1 for a table of single values",
        "provenance": "whether the figures were measured or simulated",
    }
    faults = [
        Fault(f"/settings/{name}", f"say {why[name]}, here or in a column `{name}`")
        for name, is_missing in wanted.items()
        if is_missing and getattr(settings, name) is None
    ]
    if not {"workload", "workload_digest"} & set(names):
        faults.append(
            Fault("/columns/workload", "add a column `workload` with signatures; docs/measurements.md says how")
        )
    if faults:
        raise refuse_table("the file does not say all that has to be known", *faults)


def _take(batch: pa.RecordBatch, flat: FlatFile, collected: Collected) -> None:
    rows = np.arange(collected.row_count + 1, collected.row_count + batch.num_rows + 1)
    collected.row_count += batch.num_rows
    shared: dict[str, Any] = {
        "workload": _workloads(batch, rows, collected),
        "conditions": _conditions(batch, rows, collected),
        "count": _counts(batch, rows, collected),
        "anchor_ratio": _positive(batch, "anchor_ratio", rows, collected.faults),
        "origin": _origins(batch, rows, collected),
        "measured_us": _times(batch, rows, collected.faults),
    }
    some = np.zeros(len(rows), bool)
    for column in flat.values:
        median = _positive(batch, column.name, rows, collected.faults)
        here = ~np.isnan(median)
        some |= here
        chunk = _figures(batch, column, median, rows, collected)
        collected.chunks.append(_keep(Chunk(row=rows, **shared, **chunk), here))
    absent = np.flatnonzero(~some)
    if len(absent) and not collected.faults.count:
        collected.faults.add(rows[absent], flat.values[0].name, "there is no value; write one, or leave the row out")


def _figures(
    batch: pa.RecordBatch, column: ValueColumn, median: np.ndarray, rows: np.ndarray, collected: Collected
) -> dict[str, Any]:
    """Metric, values in its own unit, and samples."""
    faults = collected.faults
    metric = _metrics(batch, column, rows, faults)
    divisor = _divisors(batch, column, metric, rows, faults)
    lower, upper = (
        (_positive(batch, name, rows, faults) for name in column.quartiles) if column.quartiles else (median, median)
    )
    unordered = np.flatnonzero((lower > median) | (median > upper))
    if len(unordered):
        faults.add(rows[unordered], column.name, "the quartiles are not on both sides of the median")
    lower, upper = np.where(np.isnan(lower), median, lower), np.where(np.isnan(upper), median, upper)
    with np.errstate(over="ignore", under="ignore"):
        figures = {"median": median / divisor, "lower_quartile": lower / divisor, "upper_quartile": upper / divisor}
    for values in figures.values():
        gone = np.flatnonzero(~np.isnan(median) & ~(np.isfinite(values) & (values > 0)))
        if len(gone):
            faults.add(
                rows[gone], column.name, "{} in its unit is 0 or endless in the metric's own", median[gone].tolist()
            )
    return {
        "metric": metric,
        **figures,
        "samples": _samples(batch, divisor, rows, collected),
    }


def _keep(chunk: Chunk, here: np.ndarray) -> Chunk:
    if here.all():
        return chunk
    kept = {part.name: getattr(chunk, part.name)[here] for part in fields(chunk) if part.name != "samples"}
    return Chunk(**kept, samples=[text for text, is_here in zip(chunk.samples, here, strict=True) if is_here])


def _workloads(batch: pa.RecordBatch, rows: np.ndarray, collected: Collected) -> np.ndarray:
    """(n,) indices of workloads, `ABSENT` where something is wrong."""
    signed, digests = texts(batch, "workload"), texts(batch, "workload_digest")
    firsts = _first_rows(signed, rows)
    found = [collected.add_signature(text, row) for text, row in zip(signed.values, firsts, strict=True)]
    by_signature = signed.map(np.array([one if isinstance(one, int) else ABSENT for one in found], np.int64))
    wrong = np.flatnonzero((signed.codes != ABSENT) & (by_signature == ABSENT))
    if len(wrong):
        collected.faults.add(rows[wrong], "workload", "{}", [str(found[signed.codes[i]]) for i in wrong[:MOST_NAMED]])
    by_digest = digests.map(_digest_indices(batch, digests, signed, rows, collected))
    both = np.flatnonzero((digests.codes != ABSENT) & (by_signature != ABSENT) & (by_digest != by_signature))
    if len(both):
        collected.faults.add(rows[both], "workload_digest", "this is not the digest of the signature beside it")
    neither = np.flatnonzero((digests.codes == ABSENT) & (signed.codes == ABSENT))
    if len(neither):
        collected.faults.add(rows[neither], "workload", "give the signature, or the digest of one that is known")
    return np.where(signed.codes != ABSENT, by_signature, by_digest)


def _digest_indices(
    batch: pa.RecordBatch, digests: Texts, signed: Texts, rows: np.ndarray, collected: Collected
) -> np.ndarray:
    """(distinct,) index of each digest; those that stand by themselves are added."""
    kinds = texts(batch, "kind")
    indices = np.array([collected.find_digest(digest) for digest in digests.values], np.int64)
    alone = np.flatnonzero((digests.codes != ABSENT) & (signed.codes == ABSENT))
    standing, firsts = np.unique(digests.codes[alone], return_index=True)
    for code, first in zip(standing, alone[firsts], strict=True):
        if _DIGEST.fullmatch(digests.values[code]):
            kind = _kind_of(kinds.values[kinds.codes[first]]) if kinds.codes[first] != ABSENT else None
            indices[code] = collected.add_digest(digests.values[code], kind, int(rows[first]))
    wrong = alone[indices[digests.codes[alone]] == ABSENT]
    if len(wrong):
        shown = [digests.values[digests.codes[index]] for index in wrong[:MOST_NAMED]]
        collected.faults.add(rows[wrong], "workload_digest", "{} is no SHA-256 digest", shown)
    return indices


def _kind_of(text: str) -> WorkloadKind | None:
    return WorkloadKind(text) if text in set(WorkloadKind) else None


def _conditions(batch: pa.RecordBatch, rows: np.ndarray, collected: Collected) -> np.ndarray:
    """(n,) indices of conditions, `ABSENT` where something is wrong."""
    columns = [texts(batch, name) for name in CONDITION_COLUMNS]
    combined = np.zeros(len(rows), np.int64)
    for column in columns:
        _, combined = np.unique(combined * (len(column.values) + 1) + column.codes + 1, return_inverse=True)
    _, firsts, inverse = np.unique(combined, return_index=True, return_inverse=True)
    found = [
        collected.add_combination(
            tuple(one.values[one.codes[first]] if one.codes[first] != ABSENT else None for one in columns)
        )
        for first in firsts
    ]
    indices = np.array([one if isinstance(one, int) else ABSENT for one in found], np.int64)[inverse]
    _tell_unfit(found, inverse, rows, collected.faults)
    return indices


def _tell_unfit(
    found: Sequence[int | tuple[str, str]], inverse: np.ndarray, rows: np.ndarray, faults: RowFaults
) -> None:
    """Tell which rows have conditions that cannot be, column by column."""
    blamed = np.array(["" if isinstance(one, int) else one[0] for one in found])[inverse]
    for column in sorted(set(blamed.tolist()) - {""}):
        bad = np.flatnonzero(blamed == column)
        messages = [one[1] for one in (found[inverse[index]] for index in bad[:MOST_NAMED]) if not isinstance(one, int)]
        faults.add(rows[bad], column, "{}", messages)


def _counts(batch: pa.RecordBatch, rows: np.ndarray, collected: Collected) -> np.ndarray:
    values = numbers(batch, "count", rows, collected.faults)
    usual = collected.settings.count
    if usual is not None:
        values = np.where(np.isnan(values), usual, values)
    bad = np.flatnonzero(~((values >= 1) & (values <= _LARGEST_COUNT) & (values == np.floor(values))))
    if len(bad):
        collected.faults.add(rows[bad], "count", "write how many values it is of, a whole number of 1 or more")
        values[bad] = 1
    return values.astype(np.int64)


def _positive(batch: pa.RecordBatch, name: str, rows: np.ndarray, faults: RowFaults) -> np.ndarray:
    values = numbers(batch, name, rows, faults)
    bad = np.flatnonzero(values <= 0)
    if len(bad):
        faults.add(rows[bad], name, "{} is not above 0", values[bad[:MOST_NAMED]].tolist())
        values[bad] = np.nan
    return values


def _origins(batch: pa.RecordBatch, rows: np.ndarray, collected: Collected) -> np.ndarray:
    usual = collected.settings.provenance
    found = np.full(len(rows), ABSENT if usual is None else ORIGINS.index(usual), np.int64)
    for name in ("provenance", "origin"):  # what it was before it was imported goes before that it was
        column = texts(batch, name)
        known = {str(origin): index for index, origin in enumerate(ORIGINS)}
        indices = column.map(np.array([known.get(text, -2) for text in column.values], np.int64))
        bad = np.flatnonzero(indices == -2)
        if len(bad):
            collected.faults.add(rows[bad], name, f"write one of {', '.join(known)}")
        found = np.where(indices != ABSENT, indices, found)
    missing = np.flatnonzero(found == ABSENT)
    if len(missing):
        collected.faults.add(rows[missing], "provenance", "say whether this was measured or simulated")
    return found


def _metrics(batch: pa.RecordBatch, column: ValueColumn, rows: np.ndarray, faults: RowFaults) -> np.ndarray:
    if column.metric is not None:
        return np.full(len(rows), METRICS.index(Metric(column.metric)), np.int64)
    named = texts(batch, "metric")
    known = {str(metric): index for index, metric in enumerate(METRICS)}
    indices = named.map(np.array([known.get(text, ABSENT) for text in named.values], np.int64))
    bad = np.flatnonzero(indices == ABSENT)
    if len(bad):
        shown = [named.values[named.codes[i]] if named.codes[i] != ABSENT else "nothing" for i in bad[:MOST_NAMED]]
        faults.add(rows[bad], "metric", f"{{}} is no metric of a device; write one of {', '.join(known)}", shown)
    return indices


def _divisors(
    batch: pa.RecordBatch, column: ValueColumn, metric: np.ndarray, rows: np.ndarray, faults: RowFaults
) -> np.ndarray:
    """(n,) how many of its unit make one of the metric's own."""
    units = list(Unit)
    if column.unit is not None:
        codes = np.full(len(rows), units.index(column.unit), np.int64)
    else:
        told = texts(batch, "unit")
        known = {str(unit): index for index, unit in enumerate(units)}
        codes = told.map(np.array([known.get(text, ABSENT) for text in told.values], np.int64))
    measures = np.array([METRICS.index(UNITS[unit][0]) for unit in units] + [ABSENT])
    unfit = np.flatnonzero((codes == ABSENT) | ((metric != ABSENT) & (measures[codes] != metric)))
    if len(unfit):
        faults.add(rows[unfit], "unit", f"write the unit that the metric has: one of {', '.join(units)}")
    return np.array([UNITS[unit][1] for unit in units] + [1.0])[codes]


def _samples(batch: pa.RecordBatch, divisor: np.ndarray, rows: np.ndarray, collected: Collected) -> list[str]:
    """JSON in the metric's own unit, one a row; what rows share is read and kept once."""
    column = texts(batch, "samples")
    if not column.values:
        return [NO_SAMPLES] * len(rows)
    divisors, divided = np.unique(divisor, return_inverse=True)
    pairs = (column.codes + 1) * len(divisors) + divided
    distinct, inverse, times_used = np.unique(pairs, return_inverse=True, return_counts=True)
    written: list[str | None] = []
    for pair, used in zip(distinct.tolist(), times_used.tolist(), strict=True):
        code, place = divmod(pair, len(divisors))
        values = _read_samples(column.values[code - 1], divisors[place].item()) if code else []
        collected.count_samples(0 if values is None else used * len(values))
        written.append(None if values is None else json.dumps(values))
    wrong = np.flatnonzero(np.array([one is None for one in written], bool)[inverse])
    if len(wrong):
        message = f"write a JSON list of at most {MOST_SAMPLES:,} finite numbers above 0"
        collected.faults.add(rows[wrong], "samples", message)
    return [written[index] or NO_SAMPLES for index in inverse.tolist()]


def _read_samples(text: str, divisor: float) -> list[float] | None:
    """Divided; None of what are none."""
    if len(text) > LONGEST_SAMPLES:
        return None
    try:
        found = json.loads(text)
        values = [float(one) / divisor for one in found if not isinstance(one, bool | str)]
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None
    is_list = isinstance(found, list) and len(values) == len(found) <= MOST_SAMPLES
    return values if is_list and all(math.isfinite(one) and one > 0 for one in values) else None


def _times(batch: pa.RecordBatch, rows: np.ndarray, faults: RowFaults) -> np.ndarray:
    """(n,) microseconds since 1970, or `NO_TIME`; a figure was taken after that, and is not of days to come."""
    found = times(batch, "measured_at", rows, faults)
    latest = int((utc_now() + _CLOCKS_DIFFER).timestamp() * 1e6)
    bad = np.flatnonzero((found != NO_TIME) & ((found < 0) | (found > latest)))
    if len(bad):
        faults.add(rows[bad], "measured_at", "write a time from 1970 to today")
    return found


def _first_rows(column: Texts, rows: np.ndarray) -> list[int]:
    """The row that each distinct text was first met in."""
    _, firsts = np.unique(column.codes, return_index=True)
    ordered = rows[firsts]
    return [int(row) for row in (ordered[1:] if len(ordered) > len(column.values) else ordered)]
