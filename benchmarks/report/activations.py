"""How far activation maps can be compressed without loss, and what sparser maps cost in accuracy.

Maps are made sparse by an L1 loss while the base is trained on (Georgiadis, CVPR 2019), rounded to 16 or 8 bits, and
coded with each code's parameters fitted on calibration images. The paper reports for MobileNet-V1 up to six times
against 32-bit floats at 16 bits, and 1.6 times fewer non-zero values, at no loss of accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from operator import attrgetter
from statistics import median
from typing import Any

from benchmarks.report.cells import Cell, Result, Scale
from benchmarks.report.experiment import DATASET, MOBILENET, SPREAD, Pictures, chosen, percent, spread, table, values_of
from benchmarks.report.material import THREADS, Bench, accuracy
from benchmarks.report.quantising import SCORED, calibration_images
from service.web.curves import Curve, Panel, Point, render_panels
from workers.activation_maps import compress_report
from workers.fold import fold_batch_norms
from workers.progress import ignore_progress
from workers.recipe import fine_tuning
from workers.splits import normalise
from workers.train import train

ALPHAS = (0.0, 1e-5, 3e-5, 1e-4, 2e-4)
EPOCHS, LEARNING_RATE = 1.0, 0.01
COUNTED_IMAGES = 1000
BITS = (16, 8)


def cells(scale: Scale, bench: Bench) -> list[Cell]:
    alphas = ALPHAS[::2] if scale.name == "quick" else ALPHAS
    return [
        Cell(
            "activations",
            {"scale": scale.name, "seed": seed, "alpha": alpha},
            partial(_compute, scale, bench, seed, alpha),
        )
        for seed in scale.seeds
        for alpha in alphas
    ]


def _compute(scale: Scale, bench: Bench, seed: int, alpha: float) -> dict[str, Any]:
    base, splits = MOBILENET.base(bench, scale, seed), bench.splits(DATASET)
    recipe = fine_tuning(MOBILENET.recipe(scale, seed, activation_l1=alpha), EPOCHS * scale.epochs, LEARNING_RATE)
    weights = train(base.network, base.weights, splits.train, recipe, ignore_progress, lambda: None)
    fitted = calibration_images(bench, base.network)
    counted = normalise(splits.score.first(COUNTED_IMAGES).images, base.network.input)
    folded = fold_batch_norms(base.network, weights)
    return {
        "accuracy": accuracy(*folded, getattr(splits, SCORED)),
        "maps": {str(bits): compress_report(base.network, weights, fitted, counted, bits, THREADS) for bits in BITS},
    }


# --- the page ---------------------------------------------------------------------------------------------------


def page(results: Sequence[Result]) -> tuple[str, Pictures]:
    parts = [
        __doc__ or "",
        f"MobileNet-V1 on `{DATASET}`; accuracy in % on `{SCORED}`, bytes of {COUNTED_IMAGES:,} images of `score`; "
        f"{SPREAD}, after {EPOCHS:g} epoch of training on.",
    ]
    for bits in BITS:
        parts += [f"## Maps of {bits} bits: times smaller than 32-bit floats", _table(results, bits)]
    parts += [
        "![Compression against accuracy](compression.svg)",
        "## Map by map, the plain network",
        _maps_table(results),
    ]
    return "\n\n".join(parts) + "\n", {"compression.svg": _picture(results)}


CODES = ("entropy", "huffman", "zvc", "eg", "seg")
"""Entropy is no code, but what none can beat that codes values one by one."""


def _gain(one: Result, bits: int, code: str) -> float:
    rows = one.figures["maps"][str(bits)]
    return float(4 * sum(row["elements"] for row in rows) / sum(row[f"{code}_bytes"] for row in rows))


def _share(one: Result) -> float:
    rows = one.figures["maps"]["16"]
    return float(sum(row["nonzero_share"] * row["elements"] for row in rows) / sum(row["elements"] for row in rows))


def _table(results: Sequence[Result], bits: int) -> str:
    rows = []
    for alpha in dict.fromkeys(one.parameters["alpha"] for one in results):
        here = chosen(results, alpha=alpha)
        gains = [_times([_gain(one, bits, code) for one in here]) for code in ("raw", *CODES)]
        rows.append(
            [f"{alpha:g}", percent(values_of(here, "accuracy")), percent([_share(one) for one in here]), *gains]
        )
    return table(["alpha", "accuracy", "non-zero, %", "raw", *CODES], rows)


def _times(values: Sequence[float]) -> str:
    middle, low, high = (f"{value:.2f}" for value in (median(values), min(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"


def _maps_table(results: Sequence[Result]) -> str:
    (first, *_) = chosen(results, alpha=0.0) or results
    rows = [
        [
            str(row["tensor"]),
            f"{100 * row['nonzero_share']:.0f}",
            *(f"{4 * row['elements'] / row[f'{code}_bytes']:.1f}" for code in CODES),
        ]
        for row in first.figures["maps"]["16"]
    ]
    return table(["map", "non-zero, %", *CODES], rows)


def _picture(results: Sequence[Result]) -> str:
    """Sparse exponential-Golomb codes of 16 and 8 bits: how many times smaller, over accuracy."""
    curves = []
    for bits in BITS:
        points: list[Point] = []
        for alpha in dict.fromkeys(one.parameters["alpha"] for one in results):
            here = chosen(results, alpha=alpha)
            right = 100 * median(values_of(here, "accuracy"))
            points.append(spread(right, [_gain(one, bits, "seg") for one in here]))
        curves.append(Curve(f"SEG, {bits} bits", sorted(points, key=attrgetter("x"))))
    return render_panels([Panel("Activation maps", "accuracy, %", "times smaller than 32-bit floats", curves)])
