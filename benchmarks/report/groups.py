"""Grouped convs in the place of depthwise ones: one group size everywhere (E2GC) against one number of groups.

At equal multiply-accumulates, as Jha et al. compare them (arXiv 2006.15100): which is more accurate, trained from first
weights and from the base's, whose depthwise filters become blocks; and what each takes on simulated devices. What
they take on this machine's processor, and the model of the best size, are in `docs/compression.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks.report.cells import Cell, Result, Scale
from benchmarks.report.experiment import DATASET, SPREAD, WIDER, Pictures, chosen, percent, table, values_of
from benchmarks.report.material import Bench, accuracy
from benchmarks.report.quantising import SCORED
from search_spaces.apply import apply
from search_spaces.costs import macs, parameters
from search_spaces.precision import parse_precision
from workers.fold import fold_batch_norms
from workers.group_comparison import Scheme, compare_groupings, grouped_design, matched_pairs
from workers.hardware import open_device
from workers.hardware.named import offered_devices
from workers.progress import ignore_progress
from workers.recipe import fine_tuning
from workers.train import train
from workers.transforms.regroup import regroup

SIZES, NUMBERS = (2, 4, 8), (2, 4, 8, 16, 32, 64)
EPOCHS = {"scratch": 2.0, "regrouped": 0.5}
DEVICES = (
    ("roofline-p100", "fp32"),
    ("roofline-p4000", "fp32"),
    ("bit-fusion-edge", "w8a8"),
    ("bit-serial-edge", "w8a8"),
)


def cells(scale: Scale, bench: Bench) -> list[Cell]:
    pairs = matched_pairs(WIDER.network(bench), SIZES, NUMBERS)
    pairs = pairs[1:2] if scale.name == "quick" else pairs
    return [
        *(
            _cell(_train, scale, bench, seed=seed, scheme=str(scheme), number=number, start=start)
            for seed in scale.seeds
            for pair in pairs
            for scheme, number in zip(Scheme, pair, strict=True)
            for start in EPOCHS
        ),
        *(
            _cell(_simulate, scale, bench, device=device, precision=precision, size=size, number=number)
            for device, precision in DEVICES
            for size, number in pairs
        ),
    ]


def _cell(compute: Any, scale: Scale, bench: Bench, **parameters: Any) -> Cell:
    told = {"part": compute.__name__.strip("_"), "scale": scale.name, **parameters}
    return Cell("groups", told, partial(compute, scale, bench, **parameters))


def _train(scale: Scale, bench: Bench, *, seed: int, scheme: str, number: int, start: str) -> dict[str, Any]:
    """The base's recipe from first weights; a short one, at a small rate, from the base's."""
    network = apply(WIDER.network(bench), grouped_design(Scheme(scheme), number))
    usual, splits, epochs = WIDER.recipe(scale, seed), bench.splits(DATASET), EPOCHS[start] * scale.epochs
    if start == "regrouped":
        weights, recipe = regroup(network, WIDER.base(bench, scale, seed).weights), fine_tuning(usual, epochs, 0.01)
    else:
        weights, recipe = None, replace(usual, epochs=epochs)
    trained = train(network, weights, splits.train, recipe, ignore_progress, lambda: None)
    return {
        "macs": macs(network),
        "parameters": parameters(network),
        "accuracy": accuracy(*fold_batch_norms(network, trained), getattr(splits, SCORED)),
    }


def _simulate(scale: Scale, bench: Bench, *, device: str, precision: str, size: int, number: int) -> dict[str, Any]:
    opened = open_device(device, offered_devices())
    (found,) = compare_groupings(WIDER.network(bench), [(size, number)], opened, parse_precision(precision))
    return found.to_json()


# --- the page ---------------------------------------------------------------------------------------------------


def page(results: Sequence[Result]) -> tuple[str, Pictures]:
    trained, simulated = chosen(results, part="train"), chosen(results, part="simulate")
    parts = [
        __doc__ or "",
        f"MobileNet-V1 on `{DATASET}`, accuracy in % on `{SCORED}`: {SPREAD}.",
        _trained_table(trained),
        "## What constant number takes for one that constant size takes, simulated",
        _simulated_table(simulated),
    ]
    return "\n\n".join(parts) + "\n", {}


def _trained_table(results: Sequence[Result]) -> str:
    rows = []
    for scheme, number in dict.fromkeys((one.parameters["scheme"], one.parameters["number"]) for one in results):
        here = chosen(results, scheme=scheme, number=number)
        figures = here[0].figures
        found = [percent(values_of(chosen(here, start=start), "accuracy")) for start in EPOCHS]
        rows.append([scheme, str(number), f"{figures['macs'] / 1e6:.2f}", f"{figures['parameters'] / 1e3:.1f}", *found])
    starts = (f"{start}, {epochs:g} epochs" for start, epochs in EPOCHS.items())
    return table(["same everywhere", "G or g", "MACs, M", "parameters, k", *starts], rows)


def _simulated_table(results: Sequence[Result]) -> str:
    rows = [
        [
            one.parameters["device"],
            one.parameters["precision"],
            f"G = {one.parameters['size']}, g = {one.parameters['number']}",
            *(
                f"{ratio:.3f}" if (ratio := one.figures["ratios"].get(metric)) else ""
                for metric in ("latency_s", "energy_j")
            ),
        ]
        for one in results
    ]
    return table(["device", "precision", "pair", "latency", "energy"], rows)
