"""What groups cost: convs by their group size with the balance model fitted to them, and E2GC against FgGC.

Convs of 256 channels, 1x1 and 3x3, on maps of 14x14 and 28x28, are measured in chains of four by ONNX Runtime on this
machine, in floating point and in integers. Constant group size and constant number of groups are compared at equal MACs
on simulated devices, and by latency here. Writes benchmarks/results/groups.json and docs/groups.svg, and prints tables.
Takes about ten minutes; `--only curves`, `simulated` or `measured` replaces one part of the results.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnxruntime
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from search_spaces.catalog import build_network
from search_spaces.cost_models.balance import Balance, GroupedConv, conv_in, relative_errors
from search_spaces.costs import workloads
from search_spaces.network import InputContract, Network, Node, Op
from search_spaces.objectives import Metric
from search_spaces.precision import FP32, W8A8, Precision, parse_precision
from search_spaces.spec import Family, NetworkSpec
from service.web.curves import Panel, Series, render_curves
from workers.anchor import in_precision
from workers.balance_fit import fit_balance
from workers.group_comparison import compare_groupings, matched_pairs
from workers.hardware import DEVICES, open_device, present_devices
from workers.hardware.base import Device
from workers.hardware.onnxruntime_cpu import OnnxRuntimeCpu
from workers.hardware.processor import processor
from workers.hardware.timing import DEFAULT_PROTOCOL
from workers.host_lock import measuring
from workers.profile import deploy_untrained

ROOT = Path(__file__).parent.parent
RESULTS, PICTURE = ROOT / "benchmarks" / "results" / "groups.json", ROOT / "docs" / "groups.svg"
CHANNELS, CHAIN = 256, 4
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
SIDES, KERNELS, PRECISIONS = (14, 28), (1, 3), (FP32, W8A8)
SIMULATED = {
    **dict.fromkeys(("roofline-p100", "roofline-p4000"), FP32),
    **dict.fromkeys(("bit-fusion-edge", "bit-fusion-server", "bit-serial-edge", "bit-serial-cloud"), W8A8),
    "zigzag-eyeriss-like": W8A8,
}
CANDIDATES = {
    Family.MOBILENET_V1: ((2, 4, 8, 16, 32), (8, 16, 32, 64, 128)),
    Family.RESNEXT_50: ((4, 8, 16, 32), (8, 16, 32, 64)),
}
console = Console()


class Part(StrEnum):
    CURVES = "curves"
    SIMULATED = "simulated"
    MEASURED = "measured"


def main(only: Annotated[Part | None, typer.Option(help="replace this part of the results alone")] = None) -> None:
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if only and RESULTS.exists() else {}
    if only in (None, Part.CURVES):
        found[Part.CURVES] = measure_curves()
    if only in (None, Part.SIMULATED):
        found[Part.SIMULATED] = list(simulate_comparisons())
    if only in (None, Part.MEASURED):
        found[Part.MEASURED] = measure_comparisons()
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    if Part.CURVES in found:
        fits = [fit for row in fit_curves(found[Part.CURVES]["points"]) for fit in [row]]
        PICTURE.write_text(render_curves(panels_of(found[Part.CURVES]["points"])) + "\n")
        show_fits(fits)
    for part in (Part.SIMULATED, Part.MEASURED):
        if part in found:
            rows = found[part] if part is Part.SIMULATED else found[part]["rows"]
            show_comparisons(str(part), rows)


def conditions() -> dict[str, Any]:
    """What the machine was and did meanwhile: others' work on it makes figures larger and less sure."""
    return {
        "processor": dict(processor()),
        "onnxruntime": onnxruntime.__version__,
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(os.getloadavg()[0], 1),
    }


# --- convs by their group size ----------------------------------------------------------------------------------


def measure_curves() -> dict[str, Any]:
    stated = conditions()
    device = OnnxRuntimeCpu()
    wanted = [(p, k, side, size) for p in PRECISIONS for k in KERNELS for side in SIDES for size in SIZES]
    points = [measure_point(device, *one) for one in track(wanted, "measuring convs")]
    return {"conditions": stated, "points": points}


def measure_point(device: Device, precision: Precision, kernel: int, side: int, size: int) -> dict[str, Any]:
    network = in_precision(chain_of(kernel, side, size), precision)
    deployed = deploy_untrained(network, DEFAULT_PROTOCOL)
    with measuring():
        result = device.measure(deployed, wanted=(Metric.LATENCY_S,))[Metric.LATENCY_S]
    return {
        "precision": str(precision),
        "signature": workloads(network)[1].signature,  # the second conv: its input is in the chain's own format
        "latency_s": result.median / CHAIN,
        "quartiles_s": [result.lower_quartile / CHAIN, result.upper_quartile / CHAIN],
    }


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


def fit_curves(points: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A fit for each precision and kernel, over both maps; without depthwise convs, which have kernels of their own."""
    for precision in PRECISIONS:
        for kernel in KERNELS:
            measured = [(c, v) for c, v in read_points(points, precision, kernel) if c.group_size > 1]
            balance = fit_balance(measured)
            errors = relative_errors(balance, measured)
            yield {
                "precision": precision,
                "kernel": kernel,
                "balance": balance,
                "best": balance.best_group_size(kernel * kernel),
                "best_of_sizes": balance.best_of(SIZES, kernel * kernel),
                "fastest": {
                    side: min((v, c.group_size) for c, v in measured if c.pixels == side * side)[1] for side in SIDES
                },
                "median_error": float(np.median(errors)),
                "largest_error": max(errors),
            }


def read_points(points: list[dict[str, Any]], precision: Precision, kernel: int) -> list[tuple[GroupedConv, float]]:
    read = [(conv_in(one["signature"]), one["latency_s"]) for one in points if one["precision"] == str(precision)]
    return [(conv, latency_s) for conv, latency_s in read if conv is not None and conv.taps == kernel * kernel]


def panels_of(points: list[dict[str, Any]]) -> list[Panel]:
    panels = []
    for fit in fit_curves(points):
        measured = read_points(points, fit["precision"], fit["kernel"])
        title = f"{fit['kernel']}x{fit['kernel']}, {fit['precision']}"
        series = [_series(fit["balance"], side, measured) for side in SIDES]
        panels.append(Panel(title, "channels per group G", "µs a conv of 256 channels", series))
    return panels


def _series(balance: Balance, side: int, measured: list[tuple[GroupedConv, float]]) -> Series:
    rows = [(conv, value) for conv, value in measured if conv.pixels == side * side]
    points = [(float(conv.group_size), 1e6 * value) for conv, value in rows]
    line = [(float(conv.group_size), 1e6 * balance.value(conv)) for conv, _ in rows if conv.group_size > 1]
    return Series(f"{side}x{side}", points, line)


def show_fits(fits: list[dict[str, Any]]) -> None:
    headings = ("precision", "kernel", "G*", "of these", "fastest", "median error", "largest", "overhead (µs)")
    table = Table(*headings, title="The balance model, fitted from G = 2 on")
    for fit in fits:
        best = f"{fit['best']:.3g}" if math.isfinite(fit["best"]) else "none"
        fastest = ", ".join(f"{side}x{side}: {size}" for side, size in fit["fastest"].items())
        errors = (f"{100 * fit['median_error']:.0f}%", f"{100 * fit['largest_error']:.0f}%")
        overhead = f"{1e6 * fit['balance'].overhead:.1f}"
        table.add_row(
            str(fit["precision"]), str(fit["kernel"]), best, str(fit["best_of_sizes"]), fastest, *errors, overhead
        )
    console.print(table)


# --- E2GC against FgGC ------------------------------------------------------------------------------------------


def network_of(family: Family) -> tuple[Network, tuple[tuple[int, int], ...]]:
    network = build_network(NetworkSpec(family=family, input=(3, 224, 224)), 1000, (0.5,) * 3, (0.5,) * 3)
    return network, matched_pairs(network, *CANDIDATES[family])


def simulate_comparisons() -> Iterator[dict[str, Any]]:
    present = present_devices()
    for name, precision in SIMULATED.items():
        for family in Family.MOBILENET_V1, Family.RESNEXT_50:
            if name not in present or (name.startswith("zigzag") and family is not Family.MOBILENET_V1):
                continue  # ZigZag takes about a second for each different layer
            network, pairs = network_of(family)
            console.print(f"{network.name} on {name}")
            for found in compare_groupings(network, pairs, open_device(name, DEVICES), precision):
                yield found.to_json()


def measure_comparisons() -> dict[str, Any]:
    stated = conditions()
    network, pairs = network_of(Family.MOBILENET_V1)
    rows = []
    for precision in PRECISIONS:
        console.print(f"{network.name} in {precision} on this machine")
        rows += [found.to_json() for found in compare_groupings(network, pairs, OnnxRuntimeCpu(), precision)]
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
