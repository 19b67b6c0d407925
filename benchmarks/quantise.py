"""What post-training quantisation adds to a candidate, for each precision and each way to tell ranges.

MobileNet-V1 of width 0.5 on 32 x 32 images, 500 of which are calibrated on, with random weights, which take as long as
trained ones. A turn is what follows reconstruction: fold, calibrate, quantise, write the file, open it and look at what
executes. Every round takes all turns, so that what else the machine does falls on all alike; the least of the rounds is
compared, since other work only ever adds. Processor seconds, of all threads together, tell what a machine that is busy
with other work would take if it were not. Prints a table and writes benchmarks/results/quantise.json.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from search_spaces.catalog import build_network
from search_spaces.network import Network, in_precision
from search_spaces.precision import FP32, Precision, parse_precision
from search_spaces.spec import Calibration, Family, NetworkSpec
from workers.candidate import Quantising, finish_candidate, timed
from workers.onnx_session import check_executed
from workers.onnx_writer import write_onnx
from workers.testing import random_weights
from workers.transforms.reconstruct import Observed
from workers.weights import Weights

RESULTS = Path(__file__).parent / "results" / "quantise.json"
TARGET_S = 0.15
"""Over the fp32 path, with ranges by `min_max`."""

IMAGES, ROUNDS = 500, 9
THREADS = len(os.sched_getaffinity(0))
PRECISIONS = ("w8a8", "w4a4", "w2a8", "w1a2", "w4a32", "w16a16", "k2a32", "k4a32")


@dataclass(frozen=True)
class Way:
    """A precision and how it is come to."""

    precision: Precision
    calibration: Calibration = Calibration.MIN_MAX
    bias_correction: bool = False

    @property
    def told(self) -> Mapping[str, str | bool]:
        return {
            "precision": str(self.precision),
            "calibration": str(self.calibration),
            "bias_correction": self.bias_correction,
        }


def main() -> None:
    network = build_network(
        NetworkSpec(family=Family.MOBILENET_V1, width=0.5, input=(3, 32, 32), stem_stride=1),
        10,
        (0.5,) * 3,
        (0.25,) * 3,
    )
    weights = random_weights(network)
    images = np.random.default_rng(0).standard_normal((IMAGES, 3, 32, 32), dtype=np.float32)
    rounds: dict[Way, list[Mapping[str, float]]] = {way: [] for way in ways()}
    for _ in track(range(ROUNDS), description="quantising", transient=True):
        for way, turns in rounds.items():
            turns.append(turn(network, weights, images, way))
    rows = summarise(rounds)
    protocol = {
        "network": "mobilenet_v1, width 0.5, 3 x 32 x 32, stem of stride 1",
        "images": IMAGES,
        "rounds": ROUNDS,
        "threads": THREADS,
        "load_average": os.getloadavg()[0],
        "versions": {name: version(name) for name in ("torch", "onnx", "onnxruntime", "numpy")},
    }
    RESULTS.write_text(json.dumps({"protocol": protocol, "target_s": TARGET_S, "rows": rows}, indent=2) + "\n")
    show(rows)


def ways() -> list[Way]:
    """fp32, every precision by min_max, the other ways to tell ranges, and corrected biases."""
    by_min_max = [Way(parse_precision(text)) for text in PRECISIONS]
    others = [Way(parse_precision(text), how) for text in ("w8a8", "w4a4") for how in Calibration]
    corrected = [Way(parse_precision(text), bias_correction=True) for text in ("w8a8", "w4a4", "w4a32")]
    return list(dict.fromkeys([Way(FP32), *by_min_max, *others, *corrected]))


def turn(network: Network, weights: Weights, images: np.ndarray, way: Way) -> Mapping[str, float]:
    """Seconds of each stage, and of all."""
    stage_s: dict[str, float] = {}
    observed = Observed(images, {}, {})
    begun_s, cpu_begun_s = perf_counter(), process_time()
    candidate = finish_candidate(
        in_precision(network, way.precision),
        weights,
        observed,
        Quantising(way.calibration, way.bias_correction),
        stage_s,
        THREADS,
    )
    with timed(stage_s, "write"):
        model = write_onnx(candidate.network, candidate.weights, candidate.ranges)
    with timed(stage_s, "check"):
        check_executed(candidate.network, model)
    return {**stage_s, "total": perf_counter() - begun_s, "processor": process_time() - cpu_begun_s}


def summarise(rounds: Mapping[Way, list[Mapping[str, float]]]) -> list[dict[str, object]]:
    best = {way: least(turns) for way, turns in rounds.items()}
    reference = best[Way(FP32)]
    rows: list[dict[str, object]] = []
    for way, turns in rounds.items():
        rows.append(
            {
                **way.told,
                "stage_s": {name: round(seconds, 4) for name, seconds in best[way].items()},
                "median_s": round(median(turn["total"] for turn in turns), 4),
                "over_fp32_s": round(best[way]["total"] - reference["total"], 4),
                "processor_over_fp32_s": round(best[way]["processor"] - reference["processor"], 4),
            }
        )
    return rows


def least(turns: list[Mapping[str, float]]) -> dict[str, float]:
    return {name: min(turn[name] for turn in turns) for name in turns[0]}


def show(rows: list[dict[str, object]]) -> None:
    table = Table(title=f"Seconds over the fp32 path; at most {TARGET_S} by min_max")
    for column in (
        "precision",
        "ranges by",
        "biases",
        "calibrate",
        "quantise",
        "write",
        "check",
        "over fp32",
        "processor",
    ):
        table.add_column(column, justify="left" if column in ("precision", "ranges by", "biases") else "right")
    for row in rows:
        stage_s = row["stage_s"]
        assert isinstance(stage_s, dict)
        stages = [f"{stage_s[name]:.4f}" for name in ("calibrate", "quantise", "write", "check")]
        biases = "corrected" if row["bias_correction"] else ""
        table.add_row(
            str(row["precision"]),
            str(row["calibration"]),
            biases,
            *stages,
            f"{row['over_fp32_s']:.3f}",
            f"{row['processor_over_fp32_s']:.3f}",
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
