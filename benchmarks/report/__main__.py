"""`make report`: regenerates docs/report/ from real trainings and measurements.

    python -m benchmarks.report --quick
    python -m benchmarks.report --only importance --only groups

What is done is kept under `--home`, so that a report that was stopped goes on where it was. A chapter takes one core:
two of them, each in a terminal of its own, finish sooner than one on two cores would.
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from benchmarks.report import EXPERIMENTS
from benchmarks.report.cells import FULL, QUICK, ROOT, Result, Scale, run_cells, take_over
from benchmarks.report.material import THREADS, Bench

console = Console()
FIGURES = "figures.json"
READING = "reading.md"
"""Written by people, once they have read the figures; never overwritten."""


def main(
    quick: Annotated[bool, typer.Option("--quick", help="one seed and small networks: minutes, not hours")] = False,
    only: Annotated[list[str] | None, typer.Option(help=f"one of {', '.join(EXPERIMENTS)}; again for more")] = None,
    home: Annotated[Path, typer.Option(help="where bases, data sets and cells are kept")] = ROOT / ".espalier",
    output: Annotated[Path | None, typer.Option(help="default: docs/report, and build/report for --quick")] = None,
) -> None:
    unknown = set(only or ()) - EXPERIMENTS.keys()
    if unknown:
        raise typer.BadParameter(f"no experiment is called {min(unknown)!r}; there are {', '.join(EXPERIMENTS)}")
    torch.set_num_threads(THREADS)
    scale = QUICK if quick else FULL
    target = output or ROOT / ("build/report" if quick else "docs/report")
    for name in only or list(EXPERIMENTS):
        report(name, scale, Bench(home), target)
    write_index(target)
    console.print(f"wrote {target}")


def report(name: str, scale: Scale, bench: Bench, target: Path) -> None:
    """One experiment: its cells, its figures as JSON, its page and its pictures."""
    experiment, kept, folder = EXPERIMENTS[name], bench.home / "report" / scale.name, target / name
    take_over(name, folder / FIGURES, kept)
    cells = experiment.cells(scale, bench)
    results = run_cells(cells, kept)
    if not results:
        console.print(f"{name}: nothing is done yet")
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / FIGURES).write_text(json.dumps(document(name, scale, results), indent=1) + "\n")
    page, pictures = experiment.page(results)
    for filename, svg in pictures.items():
        (folder / filename).write_text(svg)
    (folder / "README.md").write_text(f"# {experiment.title}\n\n{page}\n{provenance(scale, results, len(cells))}")


def document(name: str, scale: Scale, results: Sequence[Result]) -> dict[str, object]:
    return {
        "experiment": name,
        "scale": scale.name,
        "seeds": list(scale.seeds),
        "hours": round(sum(result.seconds for result in results) / 3600, 3),
        "commits": sorted({result.commit for result in results}),
        "versions": {package: version(package) for package in ("torch", "onnxruntime", "numpy")},
        "python": platform.python_version(),
        "threads_per_chapter": THREADS,
        "cells": [result.to_json() for result in results],
    }


def provenance(scale: Scale, results: Sequence[Result], wanted: int) -> str:
    hours = sum(result.seconds for result in results) / 3600
    seeds = ", ".join(map(str, scale.seeds))
    commits = ", ".join(sorted({result.commit for result in results}))
    cells = f"{len(results)} cells" if len(results) == wanted else f"{len(results)} of {wanted} cells so far"
    return (
        f"*{scale.name} report, seeds {seeds}, {cells}, {hours:.2f} hours of cells one after the other (a base counts "
        f"with the first cell that needs it), at {commits}; all figures are in [{FIGURES}]({FIGURES}).*\n"
    )


def write_index(target: Path) -> None:
    """A line for each experiment that is there."""
    there = [name for name in EXPERIMENTS if (target / name / FIGURES).is_file()]
    lines = [
        "# Report",
        "",
        "What the methods of compression do on real data, measured here. `make report` regenerates it.",
        "",
    ]
    lines += [f"- [{EXPERIMENTS[name].title}]({name}/README.md)" for name in there]
    if (target / READING).is_file():
        lines += ["", f"[What the papers claim, what appeared here, and what did not]({READING})"]
    (target / "README.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    typer.run(main)
