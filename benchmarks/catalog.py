"""The catalog at full width: its counts beside the published ones, what its design spaces cost, and random prunings.

Coupling + space + check is what submitting a spec costs; apply + costs what rejecting a design costs. Times are medians
in milliseconds on one thread. `--prune N` says how many random designs of each network are sliced and compared with
masking. Prints a table and writes benchmarks/results/catalog.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from search_spaces.apply import apply, structure_of
from search_spaces.build_space import build_space
from search_spaces.capabilities import DeviceCapabilities
from search_spaces.catalog import build_network
from search_spaces.costs import macs, parameters, symbolic_values
from search_spaces.coupling import ChannelGroup
from search_spaces.network import COMPUTE_OPS, Network, Op, infer_shapes
from search_spaces.objectives import Metric
from search_spaces.reach import symbolic_reach
from search_spaces.space import Space
from search_spaces.spec import Family, NetworkSpec, SpaceSpec
from workers.testing import draw_design, prune_at_random
from workers.weights import Weights

RESULTS = Path(__file__).parent / "results" / "catalog.json"
PUBLISHED: dict[Family, tuple[float, float]] = {
    Family.EFFICIENTNET_LITE0: (407, 4.7),
    Family.INCEPTION_V3: (5713, 23.835),
    Family.MOBILENET_V1: (569, 4.2),
    Family.MOBILENET_V2: (301, 3.505),
    Family.MOBILENET_V3_SMALL: (57, 2.543),
    Family.RESNET_18: (1814, 11.690),
    Family.RESNET_50: (4089, 25.557),
    Family.RESNEXT_50: (4230, 25.029),
    Family.SHUFFLENET_V2: (145, 2.279),
}
"""Million MACs and parameters with biases and norms: torchvision's model cards (Inception-V3 without its auxiliary
classifier), the TPU team's table for EfficientNet-Lite0, the paper's for MobileNet-V1. ResNet-56 and VGG-13 have
another shortcut and another head here than in their papers."""

SIDES = {Family.INCEPTION_V3: 299, Family.RESNET_56: 32, Family.VGG_13: 32}
SPACE = SpaceSpec.model_validate(
    {
        "prune_ratio": {"low": 0.0, "high": 0.7, "step": 0.1},
        "precision": {"choices": ["fp32", "w8a8"]},
    }
)
DEVICE = DeviceCapabilities(
    name="any", description="", precisions=("fp32", "w8a8"), channel_divisor=16, metrics=(Metric.LATENCY_S,)
)
REPEATS = 9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prune", type=int, default=5, metavar="N", help="random designs of each network (default 5)")
    prunings = parser.parse_args().prune
    load = round(os.getloadavg()[0], 1)  # of what else the machine does: it adds to every time
    rows = []
    with Progress() as progress:
        task = progress.add_task("", total=len(Family) * (1 + prunings))
        for family in Family:
            progress.update(task, description=family)
            rows.append(measure(family, prunings, lambda: progress.advance(task)))
    RESULTS.parent.mkdir(exist_ok=True)
    space = SPACE.model_dump(mode="json", exclude_none=True)
    protocol = {"repeats": REPEATS, "prunings": prunings, "load_before": load, "space": space}
    RESULTS.write_text(json.dumps({"protocol": protocol, "rows": rows}, indent=2) + "\n")
    show(rows, "The catalog at full width")


def measure(family: Family, prunings: int, advance: Callable[[], None]) -> dict[str, Any]:
    network = build(family)
    space_ms = milliseconds(lambda _: make_space(network))
    design_ms = time_designs(network)
    advance()
    published_macs, published_parameters = PUBLISHED.get(family, (None, None))
    return {
        "network": str(family),
        "nodes": len(network.nodes),
        "groups": sum(not group.frozen and group.size > group.multiple_of for group in groups_of(network)),
        "macs_m": round(macs(network) / 1e6, 2),
        "published_macs_m": published_macs,
        "parameters_m": round(all_parameters(network) / 1e6, 3),
        "published_parameters_m": published_parameters,
        "space_ms": round(space_ms, 1),
        "design_ms": round(design_ms, 2),
        "pruned_right": f"{count_prunings(network, prunings, advance)} of {prunings}",
    }


def build(family: Family) -> Network:
    side = SIDES.get(family, 224)
    return build_network(NetworkSpec(family=family, input=(3, side, side)), 1000, (0.5,) * 3, (0.5,) * 3)


def groups_of(network: Network) -> tuple[ChannelGroup, ...]:
    return structure_of(network).coupling.groups


def all_parameters(network: Network) -> int:
    """With biases, and two for each channel of a batch norm, as the published counts have them."""
    shapes = infer_shapes(network)
    biases = sum(shapes[node.name][0] for node in network.nodes if node.op in COMPUTE_OPS and node.bias)
    return parameters(network) + biases + sum(2 * shapes[n.name][0] for n in network.nodes if n.op is Op.BATCH_NORM)


def make_space(network: Network) -> Space:
    """What checking a spec does with a network, nothing being known of it."""
    structure_of.cache_clear()
    space, _ = build_space(network, SPACE, DEVICE)
    symbolic_reach(space)
    return space


def time_designs(network: Network) -> float:
    generator = np.random.default_rng(0)
    designs = [draw_design(network, generator) for _ in range(REPEATS)]
    return milliseconds(lambda number: symbolic_values(apply(network, designs[number])))


def count_prunings(network: Network, prunings: int, advance: Callable[[], None], weights: Weights | None = None) -> int:
    """How many random designs are right before the first that is not."""
    count = 0
    try:
        for _ in prune_at_random(network, prunings, 1, 0, weights):
            count += 1
            advance()
    except AssertionError as error:
        print(error)
    return count


def milliseconds(work: Callable[[int], object]) -> float:
    times = []
    for number in range(REPEATS):
        began = perf_counter()
        work(number)
        times.append(perf_counter() - began)
    return 1000 * median(times)


def show(rows: list[dict[str, Any]], title: str) -> None:
    table = Table(title=title)
    for column in rows[0] if rows else ():
        table.add_column(column.replace("_", " "), justify="left" if column == "network" else "right")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    Console(width=None if sys.stdout.isatty() else 240).print(table)


if __name__ == "__main__":
    main()
