"""What groups cost: convs by their group size with the balance model fitted to them, and E2GC against FgGC.

Convs of 256 channels, 1x1 and 3x3, on maps of 14x14 and 28x28, are measured in chains of four by ONNX Runtime on this
machine, in floating point and in integers. Constant group size and constant number of groups are compared at equal MACs
on simulated devices in closed form (ZigZag takes minutes for each conv of many groups), and here. What is told of this
machine are seconds that the thread was on the processor, so that others' work on it disturbs little. Writes
benchmarks/results/groups.json and docs/groups.svg, and prints tables; `--only` replaces one part of the results.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from pathlib import Path
from time import thread_time
from typing import Annotated, Any

import numpy as np
import onnxruntime
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from search_spaces.accelerators.models import simulate
from search_spaces.catalog import build_network
from search_spaces.cost_models.balance import Balance, GroupedConv, conv_in, relative_errors
from search_spaces.costs import workloads
from search_spaces.network import InputContract, Network, Node, Op, in_precision
from search_spaces.objectives import DEVICE_METRICS, Metric
from search_spaces.precision import FP32, W8A8, Precision, parse_precision
from search_spaces.spec import Family, NetworkSpec
from service.web.curves import Curve, Panel, Point, render_panels
from workers.balance_fit import fit_balance
from workers.group_comparison import compare_groupings, matched_pairs
from workers.hardware import open_device
from workers.hardware.accelerators import ACCELERATORS
from workers.hardware.base import Anchor, Deployed, Device, Provenance, Results, summarise
from workers.hardware.onnxruntime_cpu import NAME, OnnxRuntimeCpu
from workers.hardware.processor import processor
from workers.hardware.timing import DEFAULT_PROTOCOL, Protocol, time_alone, time_beside
from workers.host_lock import measuring
from workers.profile import deploy_untrained

ROOT = Path(__file__).parent.parent
RESULTS, PICTURE = ROOT / "benchmarks" / "results" / "groups.json", ROOT / "docs" / "groups.svg"
CHANNELS, CHAIN = 256, 4
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
SIDES, KERNELS, PRECISIONS = (14, 28), (1, 3), (FP32, W8A8)
ARRAY = "bit-fusion-edge"
"""Its energy has a least value between: few channels leave it idle, many are work."""
SIMULATED = {
    **dict.fromkeys(("roofline-p100", "roofline-p4000"), FP32),
    **dict.fromkeys(("bit-fusion-edge", "bit-fusion-server", "bit-serial-edge", "bit-serial-cloud"), W8A8),
}
CANDIDATES = {
    Family.MOBILENET_V1: ((2, 4, 8, 16, 32), (8, 16, 32, 64, 128)),
    Family.RESNEXT_50: ((4, 8, 16, 32), (8, 16, 32, 64)),
}
PROTOCOL = Protocol(rounds=2, most_rounds=4, clean_pairs=6, round_s=0.1, round_pairs=3, burst_runs=2, discarded_runs=1)
console = Console(width=150)


class ThreadTime(OnnxRuntimeCpu):
    """This machine by the seconds that the thread itself ran: what the runtime takes where nobody interrupts it."""

    def measure(
        self,
        deployed: Deployed,
        anchor: Anchor | None = None,
        protocol: Protocol = PROTOCOL,
        wanted: Collection[Metric] = DEVICE_METRICS,
    ) -> Results:
        if anchor is None:
            times = time_alone(lambda: self.open(deployed.model, protocol), protocol, thread_time)
            ratio = None
        else:
            files = (deployed.model, anchor.deployed.model)
            pairs = time_beside(
                lambda: (self.open(files[0], protocol), self.open(files[1], protocol)), protocol, thread_time
            )
            ratios = pairs[:, 0] / pairs[:, 1]
            times, ratio = ratios * anchor.latency_s, float(np.median(ratios))
        stated = {"runtime": self.version(), "clock": "thread_time"}
        return {Metric.LATENCY_S: summarise(Metric.LATENCY_S, times, ratio, protocol, stated, Provenance.MEASURED)}


@dataclass(frozen=True)
class Fit:
    """The balance model of a curve; depthwise convs, which have kernels of their own, are measured but not fitted."""

    device: str
    precision: str
    taps: int
    measured: list[tuple[GroupedConv, float]]
    balance: Balance
    errors: list[float]


class Part(StrEnum):
    CURVES = "curves"
    SIMULATED = "simulated"
    MEASURED = "measured"


def main(only: Annotated[Part | None, typer.Option(help="replace this part of the results alone")] = None) -> None:
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if only and RESULTS.exists() else {}
    if only in (None, Part.CURVES):
        found[Part.CURVES] = measure_curves()
    if only in (None, Part.SIMULATED):
        found[Part.SIMULATED] = {"points": list(simulate_points()), "rows": list(simulate_comparisons())}
    if only in (None, Part.MEASURED):
        found[Part.MEASURED] = measure_comparisons()
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    if Part.CURVES in found:
        PICTURE.write_text(render_panels(panels_of(found[Part.CURVES]["points"]), columns=2))
    points = [point for part in (Part.CURVES, Part.SIMULATED) if part in found for point in found[part]["points"]]
    show_fits(fit_curves(points))
    for part in (Part.SIMULATED, Part.MEASURED):
        if part in found:
            show_comparisons(str(part), found[part]["rows"])


def conditions() -> dict[str, Any]:
    """What the machine was and did meanwhile: others' work on it makes figures larger and less sure."""
    return {
        "processor": dict(processor()),
        "onnxruntime": onnxruntime.__version__,
        "cores": len(os.sched_getaffinity(0)),
        "clock": "seconds that the thread ran, not the wall's",
        "load_before": round(os.getloadavg()[0], 1),  # of what else the machine did: caches are shared
    }


# --- convs by their group size ----------------------------------------------------------------------------------


def measure_curves() -> dict[str, Any]:
    stated = conditions()
    device = ThreadTime()
    wanted = list(product(PRECISIONS, KERNELS, SIDES, SIZES))
    points = [measure_point(device, *one) for one in track(wanted, "measuring convs")]
    return {"conditions": stated, "points": points}


def measure_point(device: Device, precision: Precision, kernel: int, side: int, size: int) -> dict[str, Any]:
    network = in_precision(chain_of(kernel, side, size), precision)
    deployed = deploy_untrained(network, DEFAULT_PROTOCOL)
    with measuring():
        result = device.measure(deployed, wanted=(Metric.LATENCY_S,))[Metric.LATENCY_S]
    quartiles = [result.lower_quartile / CHAIN, result.upper_quartile / CHAIN]
    return point_of(NAME, precision, network, result.median) | {"quartiles": quartiles}


def simulate_points() -> Iterator[dict[str, Any]]:
    """Joules of the same chains. A graphics processor by its peaks has none to tell: it always wants G = 1."""
    for kernel, side, size in product(KERNELS, SIDES, SIZES):
        network = in_precision(chain_of(kernel, side, size), W8A8)
        yield point_of(ARRAY, W8A8, network, simulate(ARRAY, network)[Metric.ENERGY_J])


def point_of(device: str, precision: Precision, network: Network, value: float) -> dict[str, Any]:
    """A figure of a chain; its second conv is what it is of, whose input is in the chain's own format."""
    signature = workloads(network)[1].signature
    return {"device": device, "precision": str(precision), "signature": signature, "value": value / CHAIN}


def chain_of(kernel: int, side: int, size: int) -> Network:
    """Convs with a relu each: what is done to the first input and the last output weighs little."""
    nodes = [Node("input", Op.INPUT)]
    for number in range(CHAIN):
        name, groups = f"conv{number}", CHANNELS // size
        padding = (kernel // 2,) * 4
        nodes.append(
            Node(
                name, Op.CONV, (nodes[-1].name,), CHANNELS, (kernel, kernel), padding=padding, groups=groups, bias=True
            )
        )
        nodes.append(Node(f"{name}.relu", Op.RELU, (name,)))
    contract = InputContract((CHANNELS, side, side), (0.5,) * CHANNELS, (0.25,) * CHANNELS)
    return Network("chain", contract, tuple(nodes), nodes[-1].name)


def fit_curves(points: list[dict[str, Any]]) -> Iterator[Fit]:
    """A fit for each device, precision and kernel, over both maps."""
    curves = dict.fromkeys((point["device"], point["precision"], conv_of(point).taps) for point in points)
    for device, precision, taps in curves:
        measured = [
            (conv, point["value"])
            for point in points
            if (point["device"], point["precision"]) == (device, precision) and (conv := conv_of(point)).taps == taps
        ]
        grouped = [(conv, value) for conv, value in measured if conv.group_size > 1]
        yield Fit(
            device, precision, taps, measured, fit_balance(grouped), relative_errors(fit_balance(grouped), grouped)
        )


def conv_of(point: dict[str, Any]) -> GroupedConv:
    conv = conv_in(point["signature"])
    assert conv is not None, "a point is of a conv"
    return conv


def panels_of(points: list[dict[str, Any]]) -> list[Panel]:
    return [
        Panel(
            f"{math.isqrt(fit.taps)}x{math.isqrt(fit.taps)}, {fit.precision}",
            "channels per group G",
            f"µs a conv of {CHANNELS} channels",
            [_curve(fit, side) for side in SIDES],
            logarithmic=True,
        )
        for fit in fit_curves(points)
    ]


def _curve(fit: Fit, side: int) -> Curve:
    """What was measured, and what the model says."""
    rows = [(conv, value) for conv, value in fit.measured if conv.pixels == side * side]
    points = [Point(float(conv.group_size), *(1e6 * value,) * 3) for conv, value in rows]
    line = [(float(conv.group_size), 1e6 * fit.balance.value(conv)) for conv, _ in rows if conv.group_size > 1]
    return Curve(f"{side}x{side}", points, line)


def show_fits(fits: Iterator[Fit]) -> None:
    headings = ("device", "precision", "taps", "G*", "of these", "least measured", "median error", "largest")
    table = Table(*headings, title="The balance model, fitted from G = 2 on")
    for fit in fits:
        grouped = [(value, conv) for conv, value in fit.measured if conv.group_size > 1]
        least = {side: min((v, c.group_size) for v, c in grouped if c.pixels == side * side)[1] for side in SIDES}
        table.add_row(
            fit.device,
            fit.precision,
            str(fit.taps),
            f"{fit.balance.best_group_size(fit.taps):.3g}",
            str(fit.balance.best_of(SIZES, fit.taps)),
            ", ".join(f"{side}x{side}: {size}" for side, size in least.items()),
            f"{100 * float(np.median(fit.errors)):.0f}%",
            f"{100 * max(fit.errors):.0f}%",
        )
    console.print(table)


# --- E2GC against FgGC ------------------------------------------------------------------------------------------


def network_of(family: Family) -> tuple[Network, tuple[tuple[int, int], ...]]:
    network = build_network(NetworkSpec(family=family, input=(3, 224, 224)), 1000, (0.5,) * 3, (0.5,) * 3)
    return network, matched_pairs(network, *CANDIDATES[family])


def simulate_comparisons() -> Iterator[dict[str, Any]]:
    for name, precision in SIMULATED.items():
        for family in Family.MOBILENET_V1, Family.RESNEXT_50:
            network, pairs = network_of(family)
            console.print(f"{network.name} on {name}")
            for found in compare_groupings(network, pairs, open_device(name, ACCELERATORS), precision):
                yield found.to_json()


def measure_comparisons() -> dict[str, Any]:
    stated = conditions()
    network, pairs = network_of(Family.MOBILENET_V1)
    rows = []
    for precision in PRECISIONS:
        console.print(f"{network.name} in {precision} on this machine")
        rows += [found.to_json() for found in compare_groupings(network, pairs, ThreadTime(), precision)]
    return {"conditions": stated, "rows": rows}


def show_comparisons(title: str, rows: list[dict[str, Any]]) -> None:
    headings = ("network", "device", "precision", "G", "g", "MACs", "weights", "latency", "energy")
    table = Table(*headings, title=f"{title}: constant number over constant size; above 1, constant size takes less")
    for row in rows:
        ours, theirs, ratios = row["constant_size"], row["constant_number"], row["ratios"]
        figures = [theirs[key] / ours[key] for key in ("macs", "parameters")]
        figures += [ratios.get(key) for key in ("latency_s", "energy_j")]
        texts = ["" if figure is None else f"{figure:.3f}" for figure in figures]
        table.add_row(
            row["network"],
            row["device"],
            str(parse_precision(row["precision"])),
            str(ours["number"]),
            str(theirs["number"]),
            *texts,
        )
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
