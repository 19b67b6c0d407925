"""How many bits a MobileNet-V1 needs, how ranges are best told, and what training through the rounding brings back.

First and last layer stay at eight bits; below eight, files hold grid values in eight-bit containers, so that what is
scored is what an accelerator of those bits would compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from benchmarks.report.cells import Cell, Result, Scale
from benchmarks.report.experiment import (
    DATASET,
    MOBILENET,
    SPREAD,
    Pictures,
    by_seed,
    chosen,
    percent,
    spread,
    table,
    values_of,
)
from benchmarks.report.material import Bench
from benchmarks.report.quantising import SCORED, after_training, of_floats, through_training
from search_spaces.spec import Calibration, Estimator
from service.web.curves import Curve, Panel, Point, render_panels

PRECISIONS = ("w8a8", "w6a8", "w5a8", "w4a8", "w3a8", "w2a8", "w1a8", "w8a6", "w8a4", "w8a3", "w8a2", "w4a4", "w2a2")
CODEBOOKS = ("k4a32", "k3a32", "k2a32", "k1a32")
TRAINED = ("w4a4", "w2a8", "w2a2")
TRAINED_EPOCHS = 0.5


def cells(scale: Scale, bench: Bench) -> list[Cell]:
    is_quick = scale.name == "quick"
    precisions = ("w8a8", "w4a8", "w2a8", "w4a4") if is_quick else PRECISIONS
    ways = [(Calibration.MIN_MAX, False), *((one, True) for one in Calibration)]
    return [
        *(
            _cell(_after, scale, bench, seed=seed, precision=precision, calibration=str(way), corrected=corrected)
            for seed in scale.seeds
            for precision in precisions
            for way, corrected in ways
        ),
        *(
            _cell(_after, scale, bench, seed=seed, precision=precision, calibration="min_max", corrected=False)
            for seed in scale.seeds
            for precision in CODEBOOKS
        ),
        *(
            _cell(_through, scale, bench, seed=seed, precision=precision, estimator=str(estimator))
            for seed in scale.seeds
            for precision in (TRAINED[:1] if is_quick else TRAINED)
            for estimator in ((Estimator.LSQ,) if is_quick else Estimator)
        ),
    ]


def _cell(compute: Any, scale: Scale, bench: Bench, **parameters: Any) -> Cell:
    told = {"part": compute.__name__.strip("_"), "scale": scale.name, **parameters}
    return Cell("quantisation", told, partial(compute, scale, bench, **parameters))


def _after(
    scale: Scale, bench: Bench, *, seed: int, precision: str, calibration: str, corrected: bool
) -> dict[str, Any]:
    base = MOBILENET.base(bench, scale, seed)
    found = after_training(bench, base, precision, Calibration(calibration), corrected=corrected)
    return {"base": of_floats(bench, base), "accuracy": found}


def _through(scale: Scale, bench: Bench, *, seed: int, precision: str, estimator: str) -> dict[str, Any]:
    base = MOBILENET.base(bench, scale, seed)
    arguments = (scale, seed, precision, Estimator(estimator), TRAINED_EPOCHS)
    return {"accuracy": through_training(bench, base, MOBILENET, *arguments)}


# --- the page ---------------------------------------------------------------------------------------------------


def page(results: Sequence[Result]) -> tuple[str, Pictures]:
    after, through = chosen(results, part="after"), chosen(results, part="through")
    grids = [one for one in after if one.parameters["precision"] not in CODEBOOKS]
    parts = [
        __doc__ or "",
        f"Accuracy in % on `{SCORED}` of `{DATASET}`, {SPREAD}; in floats {percent(by_seed(after, 'base'))}.",
        "## After training",
        _after_table(grids),
        "![Accuracy over weight bits](weight_bits.svg)",
        "## Codebooks (k-means), activations in floats",
        table(
            ["weights", "accuracy"],
            [[name, percent(values_of(chosen(after, precision=name), "accuracy"))] for name in CODEBOOKS],
        ),
    ]
    if through:
        parts += [f"## Through training, {TRAINED_EPOCHS:g} epochs", _through_table(grids, through)]
    return "\n\n".join(parts) + "\n", {"weight_bits.svg": _picture(grids)}


def _way(one: Result) -> str:
    return f"{one.parameters['calibration']}{' + biases' if one.parameters['corrected'] else ''}"


def _after_table(results: Sequence[Result]) -> str:
    ways = list(dict.fromkeys(map(_way, results)))
    precisions = dict.fromkeys(one.parameters["precision"] for one in results)
    rows = [
        [
            name,
            *(
                percent(values_of([one for one in chosen(results, precision=name) if _way(one) == way], "accuracy"))
                for way in ways
            ),
        ]
        for name in precisions
    ]
    return table(["precision", *ways], rows)


def _through_table(after: Sequence[Result], through: Sequence[Result]) -> str:
    estimators = dict.fromkeys(one.parameters["estimator"] for one in through)
    rows = []
    for precision in dict.fromkeys(one.parameters["precision"] for one in through):
        best = _best_after(after, precision)
        found = [
            percent(values_of(chosen(through, precision=precision, estimator=name), "accuracy")) for name in estimators
        ]
        rows.append([precision, percent(best), *found])
    return table(["precision", "after training, the best way", *estimators], rows)


def _best_after(results: Sequence[Result], precision: str) -> list[float]:
    """Of the way that is best in the mean."""
    here = chosen(results, precision=precision)
    by_way = [
        values_of([one for one in here if _way(one) == way], "accuracy") for way in dict.fromkeys(map(_way, here))
    ]
    return max(by_way, key=lambda values: sum(values) / len(values), default=[])


def _picture(results: Sequence[Result]) -> str:
    curves = []
    for way in dict.fromkeys(map(_way, results)):
        points: list[Point] = []
        for bits in (8, 6, 5, 4, 3, 2, 1):
            here = [one for one in chosen(results, precision=f"w{bits}a8") if _way(one) == way]
            if found := values_of(here, "accuracy"):
                points.append(spread(bits, [100 * value for value in found]))
        if points:
            curves.append(Curve(way, points))
    title = "MobileNet-V1 after training, activations in 8 bits"
    return render_panels([Panel(title, "weight bits", "accuracy, %", curves)])
