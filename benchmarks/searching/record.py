"""Tries every design of a space by the path that a search's trials go, and keeps what was found at once.

Each process appends to a file of its own; what is complete in any of them is not computed again. So a recording can be
killed at any time, goes on where it was, and can be shared by several processes.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report.cells import current_commit
from benchmarks.searching.subject import enumerate_space
from benchmarks.searching.table import NOT_FINITE, Table
from search_spaces.design import Design
from search_spaces.known import Sources
from search_spaces.objectives import Metric, TrialState
from search_spaces.space import Space
from search_spaces.spec import SearchSpec
from service.files import write_atomically
from workers.jobs import evaluate, prepare
from workers.material import splits_of
from workers.progress import Progress, ignore_progress

FORMAT_VERSION = 1
"""Part of what a recording is found by: raise it when the same spec no longer leads to the same figures."""


@dataclass(frozen=True)
class Recording:
    """A recording that has begun. Its files are in `folder`, `origin` is what the table will tell of itself."""

    spec: SearchSpec
    space: Space
    home: Path
    folder: Path
    origin: dict[str, Any]


def begin(spec: SearchSpec, space: Space, home: Path, progress: Progress = ignore_progress) -> Recording:
    """Train the base or find it, and find what has been recorded of the same spec and base."""
    prepared = prepare(spec, Sources(), home, progress)
    told = spec.model_dump(mode="json", exclude_defaults=True)
    said = json.dumps([FORMAT_VERSION, told, prepared["base_key"], _choices(space)])
    folder = home / "recordings" / hashlib.sha256(said.encode()).hexdigest()
    splits = splits_of(spec, Sources(), space.network.input, (), home)
    origin = {
        "spec": told,
        "decisions": _choices(space),
        "designs": space.size(),
        "images": len(splits.score.first(spec.evaluation.most_score_images)),
        "base": {name: prepared[name] for name in ("base_key", "values")},
        "splits": prepared["splits"],
        "versions": {package: version(package) for package in ("torch", "onnxruntime", "numpy")},
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    return Recording(spec, space, home, folder, origin)


def record(recording: Recording, part: int, parts: int) -> Iterator[int]:
    """Try the designs of one part that are not recorded; yields how many are left of it, after each.

    Args:
        recording: that has begun.
        part: from 1 on.
        parts: that the designs are dealt out to, one by one.
    """
    rows = enumerate_space(recording.space)
    done = recorded(recording.folder)
    missing = [number for number in range(part - 1, len(rows), parts) if number not in done]
    write_atomically(recording.folder / f"commits-{current_commit()}", b"")
    own = recording.folder / f"rows-{time.time_ns()}-{os.getpid()}.csv"
    with own.open("w") as file:
        for left, number in zip(range(len(missing) - 1, -1, -1), missing, strict=True):
            file.write(",".join(map(str, (number, *_try(recording, rows[number])))) + "\n")
            file.flush()
            yield left


def _try(recording: Recording, row: np.ndarray) -> tuple[int, int]:
    """Images right, or NOT_FINITE, and milliseconds."""
    design: Design = recording.space.design_at([int(index) for index in row])
    begun_s = time.perf_counter()
    outcome = evaluate(recording.spec, Sources(), design, recording.origin["base"]["base_key"], recording.home)
    milliseconds = round(1000 * (time.perf_counter() - begun_s))
    if outcome.state is not TrialState.SUCCEEDED:
        return NOT_FINITE, milliseconds
    return round(outcome.values[Metric.ACCURACY] * recording.origin["images"]), milliseconds


def recorded(folder: Path) -> dict[int, tuple[int, int]]:
    """Images right and milliseconds by the number of the design. What was cut off by a kill is left out."""
    lines = (line for path in sorted(folder.glob("rows-*.csv")) for line in _whole_lines(path))
    return {number: (right, milliseconds) for number, right, milliseconds in lines}


def _whole_lines(path: Path) -> Iterable[tuple[int, int, int]]:
    for line in path.read_text().split("\n")[:-1]:  # what follows the last end of a line was cut off
        number, right, milliseconds = map(int, line.split(","))
        yield number, right, milliseconds


def finished(recording: Recording) -> Table | None:
    """The table, once all parts are recorded."""
    done = recorded(recording.folder)
    count = recording.space.size()
    if len(done) < count:
        return None
    figures = np.array([done[number] for number in range(count)])
    milliseconds = np.minimum(figures[:, 1], np.iinfo(np.uint16).max).astype(np.uint16)
    commits = sorted(path.name.removeprefix("commits-") for path in recording.folder.glob("commits-*"))
    return Table(figures[:, 0].astype(np.int16), milliseconds, recording.origin | {"commits": commits})


def _choices(space: Space) -> dict[str, list[int | str]]:
    return {decision.name: list(decision.choices) for decision in space.decisions}
