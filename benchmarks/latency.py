"""How well a reported latency repeats, and how near it is to what a user's own loop finds, run-by-run turns beside it.

A pruned int8 network of the demo's kind is measured in fresh processes, against the anchor of its own precision and
against the one in floating point; then the same file is run in a plain loop. Prints a table and writes
benchmarks/results/latency.json. Weights are random: what a runtime executes does not depend on their values.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime
from rich.console import Console
from rich.progress import track
from rich.table import Table

from search_spaces.apply import apply
from search_spaces.check import check_spec
from search_spaces.network import Network, in_precision
from search_spaces.objectives import Metric
from search_spaces.parse import parse_document, parse_spec
from search_spaces.precision import FP32, W8A8, Precision
from workers.announce import local_known
from workers.calibrate import calibrate
from workers.fold import fold_batch_norms
from workers.hardware.base import Anchor, Deployed
from workers.hardware.onnxruntime_cpu import OnnxRuntimeCpu
from workers.hardware.timing import DEFAULT_PROTOCOL
from workers.onnx_session import open_session
from workers.onnx_writer import write_onnx
from workers.try_design import uniform_design
from workers.weights import init_weights

SPEC = Path(__file__).parent.parent / "examples" / "mobilenet_v1_fashion_mnist.yaml"
RESULTS = Path(__file__).parent / "results" / "latency.json"
PROCESSES = 12
RATIO = 0.5
LOOP_S = 1.0
OLD_TURNS_S = 1.2
METHODS = {
    "own": "bursts, anchor in the same precision",
    "fp32": "bursts, anchor in floating point",
    "turns": "run by run, anchor in floating point",
}


def main() -> None:
    if sys.argv[1:] == ["--once"]:
        print(json.dumps(measure_once()))
        return
    runs = [_in_a_process() for _ in track(range(PROCESSES), "measuring in fresh processes")]
    rows = [summarise(method, runs) for method in METHODS]
    protocol = {"processes": PROCESSES, "onnxruntime": onnxruntime.__version__, **asdict(DEFAULT_PROTOCOL)}
    RESULTS.write_text(json.dumps({"protocol": protocol, "rows": rows, "runs": runs}, indent=1) + "\n")
    table = Table("method", "median (ms)", "spread (%)", "farthest (%)", "above a plain loop (%)", title="One latency")
    for row in rows:
        figures = ("median_ms", "spread_percent", "farthest_percent", "above_loop_percent")
        table.add_row(METHODS[row["method"]], *(f"{row[figure]:.3g}" for figure in figures))
    Console().print(table)


def _in_a_process() -> dict[str, float]:
    command = [sys.executable, __file__, "--once"]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    run: dict[str, float] = json.loads(done.stdout)
    return run


def measure_once() -> dict[str, float]:
    """Milliseconds that each method tells, and those of a plain loop."""
    device, files = OnnxRuntimeCpu(), make_files()

    def tell(name: str, anchor: Anchor | None) -> float:
        return device.measure(files[name], anchor)[Metric.LATENCY_S].median

    floating = Anchor(files["fp32"], tell("fp32", None))
    integer = Anchor(files["w8a8"], tell("w8a8", floating))
    candidate = files["candidate"].model
    seconds = {
        "own": tell("candidate", integer),
        "fp32": tell("candidate", floating),
        "turns": in_turns(candidate, files["fp32"].model) * floating.latency_s,
        "loop": float(np.median(loop(runner(candidate), LOOP_S))),
    }
    return {method: 1000 * value for method, value in seconds.items()}


def make_files() -> dict[str, Deployed]:
    spec = parse_spec(parse_document(SPEC.read_bytes(), yaml=True))
    checked = check_spec(spec, local_known())
    network, space = checked.network, checked.space
    pruned = apply(network, uniform_design(space, RATIO, None, None))
    return {"fp32": _write(network, FP32), "w8a8": _write(network, W8A8), "candidate": _write(pruned, W8A8)}


def _write(network: Network, precision: Precision) -> Deployed:
    folded, weights = fold_batch_norms(network, init_weights(network, seed=0))
    wanted = in_precision(folded, precision)
    images = np.random.default_rng(0).standard_normal((16, *network.input.shape), dtype=np.float32)
    return Deployed(wanted, write_onnx(wanted, weights, calibrate(wanted, weights, images)))


def runner(model: bytes) -> Callable[[], object]:
    session = open_session(model)
    (image,) = session.get_inputs()
    feed = {image.name: np.random.default_rng(0).standard_normal(image.shape, dtype=np.float32)}
    return lambda: session.run(None, feed)


def loop(run: Callable[[], object], seconds: float) -> list[float]:
    """Seconds of each run, as a user would time it."""
    times, end = [], perf_counter() + seconds
    while perf_counter() < end:
        start = perf_counter()
        run()
        times.append(perf_counter() - start)
    return times[len(times) // 10 :]


def in_turns(candidate: bytes, anchor: bytes) -> float:
    """The median ratio when each run of one follows a run of the other."""
    runs, ratios = (runner(candidate), runner(anchor)), []
    end = perf_counter() + OLD_TURNS_S
    while perf_counter() < end:
        times = []
        for run in runs:
            start = perf_counter()
            run()
            times.append(perf_counter() - start)
        ratios.append(times[0] / times[1])
    return float(np.median(ratios))


def summarise(method: str, runs: list[dict[str, float]]) -> dict[str, Any]:
    """Of a method over all processes: its median, how far its values lie apart, and its distance from the loops."""
    values = np.array([run[method] for run in runs])
    fastest_loop = min(run["loop"] for run in runs)
    centre = float(np.median(values))
    return {
        "method": method,
        "median_ms": round(centre, 5),
        "spread_percent": round(100 * float(values.std() / values.mean()), 2),
        "farthest_percent": round(100 * float(np.abs(values / centre - 1).max()), 2),
        "above_loop_percent": round(100 * (centre / fastest_loop - 1), 2),
    }


if __name__ == "__main__":
    main()
