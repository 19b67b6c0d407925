"""A report is made of cells: each is one training or one measurement, kept as JSON as soon as it is done.

So a report can be stopped at any time and goes on where it was, on another machine too: what is in a report that was
written counts as done. What a cell is found by is all that it is computed from.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from service.files import write_atomically

ROOT = Path(__file__).parents[2]
FORMAT_VERSION = 1
"""Part of what every cell is found by: raise it when the same parameters no longer lead to the same figures."""


@dataclass(frozen=True)
class Scale:
    """How much is computed.

    Attributes:
        name: `quick` or `full`.
        seeds: of bases and trainings.
        epochs: of a base, as a share of what the full report takes.
        width: of MobileNet-V1; the others are scaled with it.
    """

    name: str
    seeds: tuple[int, ...]
    epochs: float
    width: float


QUICK = Scale("quick", (0,), 0.5, 0.25)
FULL = Scale("full", (0, 1, 2), 1.0, 0.5)


@dataclass(frozen=True)
class Cell:
    """One thing to compute.

    Attributes:
        experiment: that it belongs to.
        parameters: JSON-safe; all that the result depends on.
        compute: gives JSON-safe figures.
    """

    experiment: str
    parameters: Mapping[str, Any]
    compute: Callable[[], dict[str, Any]]

    @property
    def key(self) -> str:
        return key_of(self.experiment, self.parameters)


def key_of(experiment: str, parameters: Mapping[str, Any]) -> str:
    said = json.dumps([FORMAT_VERSION, experiment, parameters], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


@dataclass(frozen=True)
class Result:
    """A cell that is done.

    Attributes:
        seconds: that it took.
        commit: that it was computed at.
    """

    parameters: Mapping[str, Any]
    figures: Mapping[str, Any]
    seconds: float
    commit: str

    def to_json(self) -> dict[str, Any]:
        return {
            "parameters": dict(self.parameters),
            "figures": dict(self.figures),
            "seconds": round(self.seconds, 2),
            "commit": self.commit,
        }


def run_cells(cells: Sequence[Cell], folder: Path) -> list[Result]:
    """The results of all cells, in their order; those that are kept in `folder` are not computed again.

    Ctrl-C ends it with those that are done.
    """
    commit = current_commit()
    results: list[Result] = []
    with Progress(*_columns()) as progress, suppress(KeyboardInterrupt):
        task = progress.add_task("", total=len(cells))
        for cell in cells:
            progress.update(task, description=f"{cell.experiment}: {told(cell.parameters)}")
            results.append(_result_of(cell, folder, commit))
            progress.advance(task)
    return results


def take_over(experiment: str, document: Path, folder: Path) -> None:
    """Keep the cells of a report that was written, such as one of another machine, as if they were computed here."""
    if not document.is_file():
        return
    for one in json.loads(document.read_text())["cells"]:
        path = folder / experiment / f"{key_of(experiment, one['parameters'])}.json"
        if not path.exists():
            write_atomically(path, json.dumps(one).encode())


def _columns() -> tuple[ProgressColumn, ...]:
    return (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )


def told(parameters: Mapping[str, Any]) -> str:
    return " ".join(str(value) for value in parameters.values())[:60]


def _result_of(cell: Cell, folder: Path, commit: str) -> Result:
    path = folder / cell.experiment / f"{cell.key}.json"
    if path.is_file():
        return Result(**json.loads(path.read_text()))
    begun_s = time.perf_counter()
    figures = cell.compute()
    result = Result(cell.parameters, figures, time.perf_counter() - begun_s, commit)
    write_atomically(path, json.dumps(result.to_json(), allow_nan=False).encode())
    return result


def current_commit() -> str:
    """Of the code, with a + where files have changed since."""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty=+"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return said.stdout.strip() or "unknown"
