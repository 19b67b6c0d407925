"""What scoring the channels of a base takes, beside one forward and backward pass over the same labelled images.

MobileNet-V1 of width 0.5 on 2,560 images of 28 pixels, on one thread. The pass is torch's own, of the network's module
in evaluation mode, in batches of 128. Importances and passes take turns; each figure is the median. Prints a table and
writes benchmarks/results/importance.json.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # everybody calls it F
from rich.console import Console
from rich.progress import track
from rich.table import Table

from search_spaces.catalog import build_network
from search_spaces.network import Network
from search_spaces.spec import GRADIENT_IMPORTANCES, Family, ImportanceName, NetworkSpec
from workers.importance import IMPORTANCES, Evidence
from workers.importance.gradients import USUAL_IMAGES, draw_balanced, draw_first, loss_gradient
from workers.splits import Split, normalise
from workers.testing import random_weights
from workers.torch_network import build_module
from workers.transforms.reconstruct import observe
from workers.weights import Weights

RESULTS = Path(__file__).parent / "results" / "importance.json"
NETWORK = NetworkSpec(family=Family.MOBILENET_V1, width=0.5, input=(1, 28, 28), stem_stride=1)
CLASSES, BATCH = 10, 128
REPEATS = 5
SECOND_ORDER = (ImportanceName.GRASP, ImportanceName.GRADIENT_NORM)
FIRST_ORDER_TARGET, SECOND_ORDER_TARGET = 1.5, 2.0
"""Passes, at most; of second order for the first of its two passes over the images."""


def main() -> None:
    torch.set_num_threads(1)
    network = build_network(NETWORK, CLASSES, (0.5,), (0.5,))
    weights, train = random_weights(network), draw_images(network)
    evidence = Evidence(observe(network, weights, normalise(train.images[:64], network.input)), train)
    timed: dict[str, Callable[[], object]] = {"one pass": lambda: run_pass(network, weights, train)}
    timed["g, balanced"] = lambda: loss_gradient(network, weights, draw_balanced(train))
    for name, importance in IMPORTANCES.items():
        timed[name] = partial(importance().atom_scores, network, weights, evidence)
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for _ in track(range(REPEATS), "scoring"):
        for name, run in timed.items():
            begun_s = perf_counter()
            run()
            seconds[name].append(perf_counter() - begun_s)
    report({name: median(runs) for name, runs in seconds.items()})


def draw_images(network: Network) -> Split:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (USUAL_IMAGES, *network.input.shape), dtype=np.uint8)
    return Split("train", images, np.arange(USUAL_IMAGES) % CLASSES, "")


def run_pass(network: Network, weights: Weights, train: Split) -> None:
    module = build_module(network, weights).eval()
    sample = draw_first(train)
    for first in range(0, len(sample.labels), BATCH):
        images = torch.from_numpy(normalise(sample.images[first : first + BATCH], network.input))
        labels = torch.from_numpy(sample.labels[first : first + BATCH])
        outputs = module(images.contiguous(memory_format=torch.channels_last))
        torch.autograd.backward(F.cross_entropy(outputs, labels))


def report(seconds: dict[str, float]) -> None:
    rows = [describe(name, seconds) for name in IMPORTANCES]
    protocol = {
        "network": NETWORK.model_dump(mode="json"),
        "images": USUAL_IMAGES,
        "repeats": REPEATS,
        "threads": 1,
        "torch": torch.__version__,
        "one_pass_s": round(seconds["one pass"], 3),
    }
    RESULTS.write_text(json.dumps({"protocol": protocol, "rows": rows}, indent=1) + "\n")
    table = Table("importance", *(figure.replace("_", " ") for figure in FIGURES), title="Scoring all channels")
    for row in rows:
        table.add_row(row["importance"], *("" if row[key] is None else f"{row[key]:.3g}" for key in FIGURES))
    Console().print(table, f"one forward and backward pass: {seconds['one pass']:.2f} s")


FIGURES = ("seconds", "passes", "first_pass", "second_pass", "target")


def describe(name: str, seconds: dict[str, float]) -> dict[str, Any]:
    """Figures in seconds, and in passes; `target` is of the first pass."""
    one, first = seconds["one pass"], None
    if name in GRADIENT_IMPORTANCES:
        first = seconds["g, balanced"] if name in SECOND_ORDER else seconds[name]
    return {
        "importance": name,
        "seconds": round(seconds[name], 4),
        "passes": round(seconds[name] / one, 3),
        "first_pass": None if first is None else round(first / one, 3),
        "second_pass": round((seconds[name] - seconds["g, balanced"]) / one, 3) if name in SECOND_ORDER else None,
        "target": None if first is None else SECOND_ORDER_TARGET if name in SECOND_ORDER else FIRST_ORDER_TARGET,
    }


if __name__ == "__main__":
    main()
