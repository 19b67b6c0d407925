"""Records the table that `benchmarks.search` replays searches on: every design of a small space, tried for real.

    python -m benchmarks.record_table --part 1/2

4,096 designs take some half hour to an hour on one core; several processes share the work by their `--part`. What is
done is kept under `--home`: a recording that was stopped goes on where it was. Whoever finishes last writes
benchmarks/tables/. A table that is there is not recorded again: delete it first.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

os.environ.setdefault("OMP_NUM_THREADS", "1")

import typer
from rich.console import Console
from rich.progress import Progress

from benchmarks.report.cells import ROOT
from benchmarks.searching.record import Recording, begin, finished, record
from benchmarks.searching.subject import NAME, recorded_spec, space_of
from benchmarks.searching.table import FOLDER, write_table

console = Console()


def main(
    part: Annotated[str, typer.Option(help="which share of the designs, such as 1/2: the first of two")] = "1/1",
    home: Annotated[Path, typer.Option(help="where the base, the data set and what is done are kept")] = ROOT
    / ".espalier",
) -> None:
    if (FOLDER / f"{NAME}.npz").exists():
        console.print(f"{NAME} is recorded already")
        return
    number, parts = parse_part(part)
    take_one_core(number)
    spec = recorded_spec()
    with console.status("getting the base, which takes minutes the first time"):
        recording = begin(spec, space_of(spec), home)
    show_record(recording, number, parts)
    table = finished(recording)
    if table is None:
        console.print("this part is done; others are not")
        return
    write_table(table, NAME)
    console.print(f"wrote {FOLDER / NAME}.npz")


def parse_part(text: str) -> tuple[int, int]:
    """`2/3` is (2, 3). Raises `typer.BadParameter`."""
    first, _, last = text.partition("/")
    if not (first.isdigit() and last.isdigit() and 1 <= int(first) <= int(last)):
        raise typer.BadParameter(f"--part {text}: write which of how many, such as 1/2")
    return int(first), int(last)


def take_one_core(number: int) -> None:
    """Each part computes on a core of its own, with one thread: what else runs gets the others."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[(number - 1) % len(cores)]})


def show_record(recording: Recording, number: int, parts: int) -> None:
    total = -(-recording.space.size() // parts)
    with Progress(console=console) as progress:
        task = progress.add_task(f"part {number} of {parts}", total=total)
        for left in record(recording, number, parts):
            progress.update(task, completed=total - left)


if __name__ == "__main__":
    typer.run(main)
