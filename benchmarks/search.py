"""Samplers compared on a recorded table, in seconds: every one that is installed, and Optuna as people use it alone.

    python -m benchmarks.search
    python -m benchmarks.search --only tpe --only "optuna tpe"

The table (benchmarks/tables, see `benchmarks.record_table`) holds what each of 4,096 designs is worth, so that the true
front is known. Every sampler gets the uniform baseline first, outside of its budget of 100 trials, and the same repair
under limits; it is then played on to 200 evaluations, random search to 1,000. Prints the goals, and writes
benchmarks/results/search.json and docs/search.svg.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from importlib.metadata import version
from typing import Annotated, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.report.cells import ROOT, current_commit
from benchmarks.report.material import mean_and_interval
from benchmarks.searching.judge import COUNTS, EARLY, GOALS, LATE, LONG, RANDOM, Comparison, Row, judge, row_from_json
from benchmarks.searching.optuna_alone import ALONE
from benchmarks.searching.play import Run, play, volumes_at
from benchmarks.searching.problem import AIMS, CHANCE, WHOLE, Problem, additive_r2, make_problem
from benchmarks.searching.subject import NAME
from benchmarks.searching.table import read_table
from search_spaces.samplers import SAMPLERS
from service.web.curves import Curve, Panel, Point, render_panels

RESULTS, PICTURE = ROOT / "benchmarks" / "results" / "search.json", ROOT / "docs" / "search.svg"
PLAYED = (*SAMPLERS, *ALONE)
DRAWN = COUNTS[1:]
"""What all begin with would take up the picture."""
SPREAD_AT = (50, EARLY, 150, LATE)
"""Intervals are drawn at these alone: those of one curve hardly differ from count to count."""
console = Console(width=160)


def main(
    only: Annotated[list[str] | None, typer.Option(help=f"replace these alone: {', '.join(PLAYED)}")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="from 0 on")] = 10,
    processes: Annotated[int, typer.Option(min=1)] = len(os.sched_getaffinity(0)),
) -> None:
    if unknown := set(only or ()) - set(PLAYED):
        raise typer.BadParameter(f"nothing is called {min(unknown)!r}; there are {', '.join(PLAYED)}")
    rows = rows_of(play_all(only or PLAYED, seeds, processes))
    if only and RESULTS.exists():
        rows = replaced([row_from_json(row) for row in json.loads(RESULTS.read_text())["rows"]], rows)
    write(rows)
    show(rows)


def play_all(samplers: Sequence[str], seeds: int, processes: int) -> list[Run]:
    """Every sampler on every problem with every seed, in any order."""
    wanted = [(problem, sampler, seed) for sampler in samplers for problem in AIMS for seed in range(seeds)]
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        running = [pool.submit(play_one, *one) for one in wanted]
        return [one.result() for one in track(as_completed(running), "playing", len(running), console=console)]


def play_one(problem: str, sampler: str, seed: int) -> Run:
    return play(problem_called(problem), sampler, seed, EARLY, LONG if sampler == RANDOM else LATE)


@lru_cache
def problem_called(name: str) -> Problem:
    return make_problem(name, read_table(NAME))


def rows_of(runs: Sequence[Run]) -> list[Row]:
    """Seeds together, in the order in which samplers and problems are listed."""
    commit = current_commit()
    by_name: dict[tuple[str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        by_name.setdefault((run.problem, run.sampler), []).append(run)
    return in_order([_row(problem_called(name[0]), of_seeds, commit) for name, of_seeds in by_name.items()])


def _row(problem: Problem, runs: Sequence[Run], commit: str) -> Row:
    counts = sorted({*COUNTS, LONG} if runs[0].sampler == RANDOM else COUNTS)
    shares = np.array([volumes_at(problem, run.designs, counts) for run in runs])
    evaluations = sum(max(len(run.designs), 1) for run in runs)
    return Row(
        problem.name,
        runs[0].sampler,
        {count: shares[:, place].tolist() for place, count in enumerate(counts)},
        repeats=1 - sum(max(len(set(run.designs)), 1) for run in runs) / evaluations,
        sampler_ms=1000 * sum(run.seconds for run in runs) / evaluations,
        commit=commit,
    )


def replaced(old: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """The new rows in the place of the old ones of the same sampler and problem."""
    names = {(row.problem, row.sampler) for row in new}
    return in_order([*(row for row in old if (row.problem, row.sampler) not in names), *new])


def in_order(rows: Sequence[Row]) -> list[Row]:
    known = [row for row in rows if row.sampler in PLAYED and row.problem in AIMS]
    return sorted(known, key=lambda row: (list(AIMS).index(row.problem), PLAYED.index(row.sampler)))


def write(rows: Sequence[Row]) -> None:
    told = {
        "table": describe_table(),
        "budget_trials": EARLY,
        "reference_point": {"accuracy": CHANCE, "cost": f"{WHOLE:g} of the design that nothing is taken from"},
        "problems": {name: describe(problem_called(name)) for name in AIMS},
        "versions": {package: version(package) for package in ("optuna", "numpy")},
        "python": platform.python_version(),
        "rows": [row.to_json() for row in rows],
    }
    RESULTS.write_text(json.dumps(told, indent=1) + "\n")
    PICTURE.write_text(render_panels([panel_of(name, rows) for name in AIMS]))


def describe_table() -> dict[str, Any]:
    table = read_table(NAME)
    accuracy, space = table.accuracy, problem_called(next(iter(AIMS))).space
    quantiles = np.nanquantile(accuracy, (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1))
    return {
        "name": NAME,
        "accuracy_quantiles": [round(float(quantile), 4) for quantile in quantiles],
        "additive_r2": round(additive_r2(space, accuracy), 4),
        "evaluation_s": round(float(np.median(table.milliseconds)) / 1000, 3),
    }


def describe(problem: Problem) -> dict[str, Any]:
    return {
        "objectives": [objective.metric for objective in problem.spec.objectives],
        "limits": [limit.model_dump(mode="json", exclude_none=True) for limit in problem.spec.limits],
        "designs_within_limits": int(problem.keeps.sum()),
        "front": len(problem.true_front),
        "hypervolume": round(problem.best_volume, 6),
        "baseline_share": round(volumes_at(problem, [], [0])[0], 5),
    }


def panel_of(problem: str, rows: Sequence[Row]) -> Panel:
    here = [row for row in rows if row.problem == problem]
    curves = [Curve(row.sampler, [_point(row, count) for count in DRAWN]) for row in here]
    curves += [_level(row) for row in here if LONG in row.shares]
    return Panel(f"accuracy and {problem}", "evaluations after the baseline", "regret, % of the front", curves)


def _point(row: Row, count: int) -> Point:
    share, low, high = (100 * (1 - found) for found in mean_and_interval(row.shares[count]))
    has_spread = count in SPREAD_AT
    return Point(float(count), share, max(high, 0.0) if has_spread else share, low if has_spread else share)


def _level(row: Row) -> Curve:
    """What a long search ends with, as a line through the picture."""
    ends = (float(DRAWN[0]), float(DRAWN[-1]))
    share = 100 * (1 - mean_and_interval(row.shares[LONG])[0])
    return Curve(f"{row.sampler} at {LONG}", [], [(end, share) for end in ends])


def show(rows: Sequence[Row]) -> None:
    for problem in AIMS:
        here = [row for row in rows if row.problem == problem]
        headings = ("sampler", f"hypervolume at {EARLY}", *GOALS, "ms", "repeats")
        table = Table(*headings, title=f"accuracy and {problem}: share of the true front's hypervolume, %")
        for verdict in judge(here):
            share, low, _ = verdict.share
            told = [_told(verdict.goals.get(goal), is_ratio=goal == GOALS[-1]) for goal in GOALS]
            row = verdict.row
            found = f"{100 * share:.2f} ± {100 * (share - low):.2f}"
            table.add_row(row.sampler, found, *told, f"{row.sampler_ms:.1f}", f"{100 * row.repeats:.0f}%")
        console.print(table)


def _told(comparison: Comparison | None, *, is_ratio: bool) -> str:
    if comparison is None:
        return ""
    value, low, high = comparison.value, comparison.low, comparison.high
    told = f"{value:.2f} ({low:.2f} to {high:.2f})" if is_ratio else f"{100 * value:+.2f} ± {100 * (value - low):.2f}"
    return f"{'met' if comparison.is_met else 'missed'} {told}"


if __name__ == "__main__":
    typer.run(main)
