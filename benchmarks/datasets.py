"""How long a user's own data set takes from a folder to the first batch, and again at a second start.

50,000 images of 32 x 32 in ten class folders, half PNG, half JPEG, made in a temporary folder. One process on one core
packs, indexes and renders; another starts anew and opens what is there. Prints a table and writes
benchmarks/results/datasets.json. Peak memory is the process's until then, with what it has mapped from files.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import Progress as RichProgress
from rich.progress import track
from rich.table import Table

from search_spaces.network import InputContract
from service.packing import pack
from workers.datasets.index import load_index, save_index
from workers.datasets.indexing import index_dataset
from workers.datasets.preview import preview
from workers.datasets.render import render
from workers.progress import Progress

RESULTS = Path(__file__).parent / "results" / "datasets.json"
IMAGES, CLASSES, SIZE = 50_000, 10, 32
CONTRACTS = {
    "render 32 x 32": InputContract((3, 32, 32), (0.5,) * 3, (0.25,) * 3),
    "render 64 x 64, resized to 72": InputContract((3, 64, 64), (0.5,) * 3, (0.25,) * 3, 72),
}
AS_SECOND_START = "second-start"


def main() -> None:
    load = round(os.getloadavg()[0], 1)  # of what else the machine does: it adds to every figure
    with tempfile.TemporaryDirectory(prefix="espalier-datasets-") as name:
        folder = Path(name)
        make_images(folder / "photos")
        rows = measure(folder)
    protocol = {"images": IMAGES, "size": SIZE, "cores": os.cpu_count(), "load_before": load}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"protocol": protocol, "rows": rows}, indent=2) + "\n")
    show(rows)


def make_images(folder: Path) -> None:
    """Smooth colours with a little noise, as photos have; no two alike."""
    generator = np.random.default_rng(0)
    for number in range(CLASSES):
        (folder / f"class_{number}").mkdir(parents=True)
    for number in track(range(IMAGES), description="making images"):
        corners = Image.fromarray(generator.integers(256, size=(4, 4, 3), dtype=np.uint8)).resize((SIZE, SIZE))
        pixels = np.asarray(corners) ^ generator.integers(8, size=(SIZE, SIZE, 3), dtype=np.uint8)
        ending = "png" if number % 2 else "jpg"
        Image.fromarray(pixels).save(folder / f"class_{number % CLASSES}" / f"{number}.{ending}")


def measure(folder: Path) -> list[dict[str, Any]]:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    archive, rendered = folder / "data.zip", folder / "rendered"
    rows: list[dict[str, Any]] = []
    with RichProgress() as bar:
        keep_packed(folder / "photos", archive, begin(bar, rows, "pack"))
        index = index_dataset([archive], "photos", None, begin(bar, rows, "index"))
        for name, contract in CONTRACTS.items():
            render(index, [archive], contract, rendered, begin(bar, rows, name))
        begin(bar, rows, "preview and store")
        preview(index, [archive])
        save_index(index, folder / "index")
        end(rows)
    rows.append(as_row("second start", second_start(folder), resource.RUSAGE_CHILDREN))
    return rows


def begin(bar: RichProgress, rows: list[dict[str, Any]], name: str) -> Progress:
    """End the step before, begin one of this name, and show its progress."""
    end(rows)
    rows.append({"step": name, "began": time.perf_counter()})
    task = bar.add_task(name, total=1.0)
    return lambda _stage, done, _message: bar.update(task, completed=done)


def end(rows: list[dict[str, Any]]) -> None:
    if rows:
        rows[-1] = as_row(rows[-1]["step"], time.perf_counter() - rows[-1]["began"])


def as_row(name: str, seconds: float, who: int = resource.RUSAGE_SELF) -> dict[str, Any]:
    peak_mb = round(resource.getrusage(who).ru_maxrss / 1000)
    return {"step": name, "seconds": round(seconds, 3), "images_per_s": round(IMAGES / seconds), "peak_mb": peak_mb}


def keep_packed(source: Path, archive: Path, progress: Progress) -> None:
    with pack(source, lambda done, total: progress("pack", done / total, "")) as packed:
        shutil.move(packed, archive)


def second_start(folder: Path) -> float:
    """Seconds that a new process takes to open the index and all splits, without those of importing libraries."""
    command = [sys.executable, __file__, AS_SECOND_START, str(folder)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def open_again(folder: Path) -> float:
    began = time.perf_counter()
    index = load_index(folder / "index")
    for contract in CONTRACTS.values():
        splits = render(index, [], contract, folder / "rendered")
        assert splits.train.images[len(splits.train) - 1].any()
    return time.perf_counter() - began


def show(rows: list[dict[str, Any]]) -> None:
    table = Table(title=f"{IMAGES:,} images of {SIZE} x {SIZE}, one core")
    for name in rows[0]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(f"{value:,}" if isinstance(value, int) else str(value) for value in row.values()))
    Console().print(table)


if __name__ == "__main__":
    if sys.argv[1:2] == [AS_SECOND_START]:
        print(open_again(Path(sys.argv[2])))
    else:
        main()
