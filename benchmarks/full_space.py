"""Samplers compared on a space that nobody can try whole, each design tried for real, on both Fashion-MNISTs.

    python -m benchmarks.full_space [--dataset fashion_mnist]

A MobileNet-V1 of width 0.25 with 13 prune ratios and the bits of 13 blocks; accuracy against the latency on
bit-serial-edge. Two seeds of 100 evaluations after the uniform baseline; ours, random search, and Optuna alone. A
design that one search has tried counts for another with the time that it took. Time is the processor's.

Writes benchmarks/results/full_space.json and docs/full_space.svg. Stopped, it goes on with the searches that are left.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import moocore
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.report.cells import ROOT, Cell, Result, run_cells
from benchmarks.searching.live import Evaluation, LiveProblem, Tried
from benchmarks.searching.play import search_of
from benchmarks.searching.problem import CHANCE
from benchmarks.searching.subject import DEVICE, PRECISIONS
from search_spaces.accelerators.models import MODELS
from search_spaces.check import check_spec
from search_spaces.known import Known, Sources
from search_spaces.objectives import Metric
from search_spaces.parse import parse_spec
from search_spaces.space import Indices, Space
from search_spaces.spec import SearchSpec
from service.web.curves import Curve, Panel, Point, render_panels
from workers.jobs import prepare

DATASETS = ("fashion_mnist", "fashion_mnist_cluttered")
SAMPLERS = ("evolution", "greedy", "random", "optuna tpe", "optuna nsga2")
SEEDS = (0, 1)
BUDGET = 100
COUNTS = tuple(range(0, BUDGET + 1, 5))
RESULTS, PICTURE = ROOT / "benchmarks" / "results" / "full_space.json", ROOT / "docs" / "full_space.svg"
console = Console(width=160)


@dataclass(frozen=True)
class Subject:
    """What is searched on one data set, with its base there, and what has been tried of it."""

    spec: SearchSpec
    space: Space
    base_key: str
    home: Path
    known: dict[Indices, Tried]


def main(
    dataset: Annotated[list[str] | None, typer.Option(help=f"these alone: {', '.join(DATASETS)}")] = None,
    home: Annotated[Path, typer.Option(help="where bases, data sets and what is done are kept")] = ROOT / ".espalier",
) -> None:
    if strangers := set(dataset or ()) - set(DATASETS):
        raise typer.BadParameter(f"there is no {min(strangers)!r} here; there are {', '.join(DATASETS)}")
    told = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in dataset or DATASETS:
        with console.status(f"getting the base of {name}, which takes minutes the first time"):
            subject = subject_of(name, home)
        results = run_cells(cells_of(name, subject), home / "recordings")
        told[name] = summary(results)
    RESULTS.write_text(json.dumps(told, indent=1) + "\n")
    PICTURE.write_text(render_panels([panel for name in told for panel in panels_of(name, told[name])], columns=2))
    for name in told:
        show(name, told[name])


def subject_of(dataset: str, home: Path) -> Subject:
    spec = parse_spec(
        {
            "name": f"{dataset} whole",
            "network": {"family": "mobilenet_v1", "width": 0.25, "input": [1, 28, 28], "stem_stride": 1},
            "dataset": {"name": dataset},
            "space": {
                "prune_ratio": {"low": 0.0, "high": 0.75, "step": 0.15},
                "precision": {"choices": PRECISIONS, "scope": "block"},
            },
            "objectives": [
                {"metric": "accuracy", "direction": "maximize"},
                {"metric": "latency_s", "direction": "minimize", "device": DEVICE},
            ],
            "evaluation": {"reconstruct": "least_squares", "calibration_images": 500, "score_images": 2000},
            "budget": {"trials": BUDGET},
        }
    )
    known = Known(devices={name: model.capabilities for name, model in MODELS.items()})
    return Subject(spec, check_spec(spec, known).space, prepare(spec, Sources(), home)["base_key"], home, {})


def cells_of(dataset: str, subject: Subject) -> list[Cell]:
    """One for each search."""
    wanted = [(sampler, seed) for seed in SEEDS for sampler in SAMPLERS]
    return [
        Cell(
            "full_space",
            {"dataset": dataset, "sampler": sampler, "seed": seed, "spec": subject.spec.model_dump(mode="json")},
            partial(search, subject, sampler, seed),
        )
        for sampler, seed in wanted
    ]


def search(subject: Subject, sampler: str, seed: int) -> dict[str, Any]:
    """What was found, in its order."""
    problem = LiveProblem(subject.spec, subject.space, subject.base_key, subject.home, subject.known)
    search_of(problem, sampler, seed, BUDGET)(BUDGET)
    return {
        "baseline": len(subject.space.uniform),
        "whole_latency_s": problem.evaluations[0].values[Metric.LATENCY_S],
        "evaluations": [_told(one) for one in problem.evaluations],
    }


def _told(one: Evaluation) -> list[float]:
    """Accuracy (that of guessing where there is none), latency, seconds."""
    return [one.values.get(Metric.ACCURACY, CHANCE), one.values[Metric.LATENCY_S], round(one.seconds, 3)]


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """By sampler and seed, at each of `COUNTS`: the share of the hypervolume that all searches have together."""
    fronts = [points_of(result) for result in results]
    together = volume(np.concatenate(fronts))
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for result, points in zip(results, fronts, strict=True):
        ends = [min(result.figures["baseline"] + count, len(points)) for count in COUNTS]
        seconds = [evaluation[2] for evaluation in result.figures["evaluations"]]
        rows[result.parameters["sampler"]].append(
            {
                "seed": result.parameters["seed"],
                "share": [round(volume(points[:end]) / together, 5) for end in ends],
                "seconds": [round(seconds[end - 1], 1) for end in ends],
                "commit": result.commit,
            }
        )
    return {"evaluations": list(COUNTS), "hypervolume": round(together, 6), "samplers": dict(rows)}


def points_of(result: Result) -> np.ndarray:
    """What is minimised, (n, 2): 1 - accuracy, and latency as a share of that of 8 bits throughout."""
    told = np.array(result.figures["evaluations"])
    return np.stack([1 - told[:, 0], told[:, 1] / result.figures["whole_latency_s"]], axis=1)


def volume(points: np.ndarray) -> float:
    """Hypervolume against guessing at the latency of 8 bits throughout."""
    inside = points[(points < [1 - CHANCE, 1.0]).all(axis=1)]
    return float(moocore.hypervolume(inside, ref=[1 - CHANCE, 1.0])) if len(inside) else 0.0


def panels_of(dataset: str, told: dict[str, Any]) -> list[Panel]:
    """Against evaluations and against seconds."""
    counts = told["evaluations"]
    by_count, by_time = [], []
    for sampler, runs in told["samplers"].items():
        shares = 100 * np.array([run["share"] for run in runs])
        seconds = np.array([run["seconds"] for run in runs]).mean(axis=0)
        by_count.append(Curve(sampler, _points(counts, shares)))
        by_time.append(Curve(sampler, _points(seconds.tolist(), shares)))
    return [
        Panel(dataset, "evaluations after the baseline", "hypervolume, % of all that was found", by_count),
        Panel(dataset, "processor seconds, baseline and sampler included", "hypervolume, %", by_time),
    ]


def _points(x: Sequence[float], shares: np.ndarray) -> list[Point]:
    """The mean of the seeds; their spread at every fifth."""
    means, lows, highs = shares.mean(axis=0), shares.min(axis=0), shares.max(axis=0)
    rows = zip(x, means.tolist(), lows.tolist(), highs.tolist(), strict=True)
    return [
        Point(float(at), mean, low if place % 5 == 0 else mean, high if place % 5 == 0 else mean)
        for place, (at, mean, low, high) in enumerate(rows)
    ]


def show(dataset: str, told: dict[str, Any]) -> None:
    counts = told["evaluations"]
    table = Table("sampler", *(f"at {count}" for count in (0, 25, 50, 100)), "seconds", title=dataset)
    for sampler, runs in told["samplers"].items():
        shares = [" ".join(f"{100 * run['share'][counts.index(c)]:.2f}" for run in runs) for c in (0, 25, 50, 100)]
        table.add_row(sampler, *shares, " ".join(f"{run['seconds'][-1]:.0f}" for run in runs))
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
