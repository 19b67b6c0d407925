"""Whether a base whose weights were kept in a small range suffers less from few bits.

R2 (arXiv 2303.08253) trains the base with a loss of its weights' range: their largest magnitude (L-inf), a learned
margin, or a soft minimum and maximum. KURE (arXiv 2002.07686) makes weights uniform instead. Each base is brought to
few bits afterwards, trained through the rounding, and stored by codebooks.
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
    chosen,
    percent,
    points_gained,
    table,
    values_of,
)
from benchmarks.report.material import Bench
from benchmarks.report.quantising import SCORED, after_training, of_floats, through_training
from search_spaces.spec import Calibration, Estimator, RegulariserName
from workers.base import Base
from workers.recipe import Regulariser

NONE = "none"
WEIGHTS = {NONE: 0.0, **{str(name): 0.01 for name in RegulariserName}}
"""Of each loss beside that of the task; .01 is what is remembered of the paper's, for all of them."""

AFTER = ("w2a8", "w2a2", "w4a4", "k2a32", "k1a32")
THROUGH = ("w2a8", "w2a2", "w4a4")
TRAINED_EPOCHS = 0.5


def cells(scale: Scale, bench: Bench) -> list[Cell]:
    is_quick = scale.name == "quick"
    return [
        _cell(scale, bench, seed=seed, regulariser=name, weight=weight, how=how, precision=precision)
        for seed in scale.seeds
        for name, weight in WEIGHTS.items()
        for how, precisions in (
            ("floats", ("fp32",)),
            ("after", AFTER),
            ("through", THROUGH[:1] if is_quick else THROUGH),
        )
        for precision in precisions
    ]


def _cell(scale: Scale, bench: Bench, **parameters: Any) -> Cell:
    return Cell("regularisers", {"scale": scale.name, **parameters}, partial(_compute, scale, bench, **parameters))


def _compute(
    scale: Scale, bench: Bench, *, seed: int, regulariser: str, weight: float, how: str, precision: str
) -> dict[str, Any]:
    base = _base(scale, bench, seed, regulariser, weight)
    if how == "floats":
        return {"accuracy": of_floats(bench, base), "learned": base.report.get("regulariser", {})}
    if how == "after":
        return {"accuracy": after_training(bench, base, precision, Calibration.MSE, corrected=True)}
    arguments = (scale, seed, precision, Estimator.LSQ, TRAINED_EPOCHS)
    return {"accuracy": through_training(bench, base, MOBILENET, *arguments)}


def _base(scale: Scale, bench: Bench, seed: int, regulariser: str, weight: float) -> Base:
    """Plainly trained ones are those of the other chapters."""
    if regulariser == NONE:
        return MOBILENET.base(bench, scale, seed)
    return MOBILENET.base(bench, scale, seed, regulariser=Regulariser(RegulariserName(regulariser), weight))


# --- the page ---------------------------------------------------------------------------------------------------


def page(results: Sequence[Result]) -> tuple[str, Pictures]:
    names = [name for name in WEIGHTS if chosen(results, regulariser=name)]
    columns = list(dict.fromkeys((one.parameters["how"], one.parameters["precision"]) for one in results))
    headings = {"floats": "floats", "after": "{}, after", "through": "{}, through training"}
    rows = [
        [f"{name}{f', {WEIGHTS[name]:g}' if WEIGHTS[name] else ''}"]
        + [
            percent(values_of(chosen(results, regulariser=name, how=how, precision=precision), "accuracy"))
            for how, precision in columns
        ]
        for name in names
    ]
    gains = [
        [name, *(_gain(results, name, how, precision) for how, precision in columns)] for name in names if name != NONE
    ]
    shown = [headings[how].format(precision) for how, precision in columns]
    parts = [
        __doc__ or "",
        f"MobileNet-V1, accuracy in % on `{SCORED}` of `{DATASET}`: {SPREAD}. Ranges by least squared "
        "error, biases corrected; k2a32 and k1a32 are codebooks.",
        table(["loss, weight", *shown], rows),
        "## Against the plain base of the same seed: points gained, mean and 95% interval",
        table(["loss", *shown], gains),
    ]
    return "\n\n".join(parts) + "\n", {}


def _gain(results: Sequence[Result], name: str, how: str, precision: str) -> str:
    """Mean and 95% interval of the paired differences."""
    here = chosen(results, how=how, precision=precision)
    plain = {one.parameters["seed"]: one.figures["accuracy"] for one in chosen(here, regulariser=NONE)}
    pairs = [
        one.figures["accuracy"] - plain[one.parameters["seed"]]
        for one in chosen(here, regulariser=name)
        if one.parameters["seed"] in plain
    ]
    return points_gained(pairs)
