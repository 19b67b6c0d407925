"""Which channels stay: the scores of the gradient-flow framework, and ours, on three networks.

The paper (Lubana and Dick, arXiv 2009.11839) claims that (i) magnitude leads to faster convergence than scores that do
not look at it, (ii) loss preservation suits networks that are hardly trained, and (iii) raising the gradient's norm
makes poor networks, where preserving it does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from benchmarks.report.cells import Cell, Result, Scale
from benchmarks.report.experiment import (
    DATASET,
    MOBILENET,
    RESNET,
    SPREAD,
    VGG,
    Pictures,
    Subject,
    by_seed,
    chosen,
    percent,
    spread,
    table,
    values_of,
)
from benchmarks.report.material import Bench, accuracy
from search_spaces.network import Network
from search_spaces.ranking import Ranking, count_filters, keep_filters
from search_spaces.spec import ImportanceName, Reconstruct
from service.web.curves import Curve, Panel, Point, render_panels
from workers.fold import fold_batch_norms
from workers.importance import IMPORTANCES
from workers.importance.base import Evidence
from workers.progress import ignore_progress
from workers.recipe import fine_tuning
from workers.splits import normalise
from workers.train import train
from workers.transforms.reconstruct import observe
from workers.transforms.rounds import Rounds, prune, prune_in_rounds
from workers.weights import Weights, init_weights

CALIBRATION_IMAGES, TUNED_EPOCHS, TUNING_RATE = 500, 0.1, 0.01
SCORED = "confirm"
_FLOW = (
    ImportanceName.FILTER_L2,
    ImportanceName.LOSS,
    ImportanceName.BIASED_LOSS,
    ImportanceName.GRASP,
    ImportanceName.GRADIENT_NORM,
)
_ALL = (ImportanceName.L1, *_FLOW, ImportanceName.BATCH_NORM_SCALE, ImportanceName.RANDOM)
_SUBJECTS = {str(subject.family): subject for subject in (MOBILENET, VGG, RESNET)}
_FIRST_EPOCHS, _FINAL_EPOCHS = 0.1, 1.5


def cells(scale: Scale, bench: Bench) -> list[Cell]:
    is_quick = scale.name == "quick"
    ratios = (0.5,) if is_quick else (0.5, 0.75)
    subjects = [MOBILENET] if is_quick else list(_SUBJECTS.values())
    return [
        *(
            _cell(
                _prune_trained,
                scale,
                bench,
                family=str(subject.family),
                seed=seed,
                importance=str(name),
                ranking=ranking,
                ratio=ratio,
            )
            for seed in scale.seeds
            for subject in subjects
            for ranking in map(str, Ranking)
            for ratio in ratios
            for name in _ALL
        ),
        *(
            _cell(
                _prune_early,
                scale,
                bench,
                family=str(MOBILENET.family),
                seed=seed,
                importance=str(name),
                rounds=rounds,
                ratio=ratios[-1],
            )
            for seed in scale.seeds
            for rounds in ((1,) if is_quick else (1, 5))
            for name in _FLOW
        ),
    ]


def _cell(compute: Any, scale: Scale, bench: Bench, **parameters: Any) -> Cell:
    told = {"part": compute.__name__.strip("_"), "scale": scale.name, **parameters}
    return Cell("importance", told, partial(compute, scale, bench, **parameters))


def _prune_trained(
    scale: Scale, bench: Bench, *, family: str, seed: int, importance: str, ranking: str, ratio: float
) -> dict[str, Any]:
    """A trained base, pruned at once: as it is, repaired by least squares, and trained on a little."""
    subject = _SUBJECTS[family]
    base, splits = subject.base(bench, scale, seed), bench.splits(DATASET)
    observed = observe(base.network, base.weights, _calibration(bench, base.network))
    scores = IMPORTANCES[importance]().atom_scores(base.network, base.weights, Evidence(observed, splits.train))
    filters = round(count_filters(base.network) * (1 - ratio))
    design = keep_filters(base.network, filters, scores, Ranking(ranking))
    made = {
        method: prune(base.network, base.weights, design, scores, observed, method)
        for method in (Reconstruct.NONE, Reconstruct.BATCH_NORM, Reconstruct.LEAST_SQUARES)
    }
    network, sliced = made[Reconstruct.NONE]
    tuned = _tune(subject, scale, bench, network, sliced, seed, TUNED_EPOCHS)
    return {
        "base": _right(bench, base.network, base.weights),
        "filters": count_filters(network),
        **{str(method): _right(bench, *pair) for method, pair in made.items()},
        "tuned": _right(bench, network, tuned),
    }


def _prune_early(
    scale: Scale, bench: Bench, *, family: str, seed: int, importance: str, rounds: int, ratio: float
) -> dict[str, Any]:
    """First weights, a little training before each round's pruning, then a training of what is left."""
    subject = _SUBJECTS[family]
    network, recipe = subject.network(bench), subject.recipe(scale, seed)
    train_split = bench.splits(DATASET).train

    def train_round(network: Network, weights: Weights, number: int) -> Weights:
        first = fine_tuning(recipe, _FIRST_EPOCHS / rounds, recipe.learning_rate)
        return train(network, weights, train_split, first, ignore_progress, lambda: None)

    plan = Rounds(ratio, rounds)
    images = _calibration(bench, network)
    first = init_weights(network, seed)
    pruned = prune_in_rounds(network, first, IMPORTANCES[importance](), images, train_split, plan, train_round)
    final = fine_tuning(recipe, _FINAL_EPOCHS * scale.epochs, recipe.learning_rate)
    weights = train(pruned.network, pruned.weights, train_split, final, ignore_progress, lambda: None)
    return {"filters": pruned.filters[-1], "accuracy": _right(bench, pruned.network, weights)}


def _tune(
    subject: Subject, scale: Scale, bench: Bench, network: Network, weights: Weights, seed: int, epochs: float
) -> Weights:
    recipe = fine_tuning(subject.recipe(scale, seed), epochs, TUNING_RATE)
    return train(network, weights, bench.splits(DATASET).train, recipe, ignore_progress, lambda: None)


def _calibration(bench: Bench, network: Network) -> Any:
    return normalise(bench.splits(DATASET).calibrate.first(CALIBRATION_IMAGES).images, network.input)


def _right(bench: Bench, network: Network, weights: Weights) -> float:
    return accuracy(*fold_batch_norms(network, weights), getattr(bench.splits(DATASET), SCORED))


# --- the page ---------------------------------------------------------------------------------------------------


def page(results: Sequence[Result]) -> tuple[str, Pictures]:
    trained, early = chosen(results, part="prune_trained"), chosen(results, part="prune_early")
    parts = [__doc__ or "", f"Accuracy in % on `{SCORED}` of `{DATASET}`: {SPREAD}."]
    pictures: dict[str, str] = {}
    for family in dict.fromkeys(one.parameters["family"] for one in trained):
        here = chosen(trained, family=family)
        parts += [f"## {family}, trained, base {percent(by_seed(here, 'base'))}", _trained_table(here)]
        pictures[f"{family}.svg"] = _picture(family, here)
        parts.append(f"![Accuracy after pruning {family}]({family}.svg)")
    if early:
        parts += ["## Pruned when hardly trained (mobilenet_v1), then trained", _early_table(early)]
    return "\n\n".join(parts) + "\n", pictures


def _trained_table(results: Sequence[Result]) -> str:
    columns = {
        "none": "as it is",
        "batch_norm": "norms recalibrated",
        "least_squares": "least squares",
        "tuned": f"{TUNED_EPOCHS:g} epochs",
    }
    groups = dict.fromkeys(
        (one.parameters["ratio"], one.parameters["ranking"], one.parameters["importance"]) for one in results
    )
    rows = [
        [
            f"{ratio:.0%}",
            ranking,
            name,
            *(
                percent(values_of(chosen(results, ratio=ratio, ranking=ranking, importance=name), key))
                for key in columns
            ),
        ]
        for ratio, ranking, name in groups
    ]
    return table(["filters gone", "ranked", "importance", *columns.values()], rows)


def _early_table(results: Sequence[Result]) -> str:
    names = dict.fromkeys(one.parameters["importance"] for one in results)
    rounds = dict.fromkeys(one.parameters["rounds"] for one in results)
    rows = [
        [name, *(percent(values_of(chosen(results, importance=name, rounds=count), "accuracy")) for count in rounds)]
        for name in names
    ]
    return table(["importance", *(f"{count} round{'s' * (count > 1)}" for count in rounds)], rows)


def _picture(family: str, results: Sequence[Result]) -> str:
    """Globally ranked: accuracy after the little training, over the share of filters that are gone."""
    curves = []
    for name in dict.fromkeys(one.parameters["importance"] for one in results):
        points: list[Point] = []
        for ratio in sorted({one.parameters["ratio"] for one in results}):
            found = values_of(chosen(results, ranking=str(Ranking.GLOBAL), importance=name, ratio=ratio), "tuned")
            if found:
                points.append(spread(100 * ratio, [100 * value for value in found]))
        if points:
            curves.append(Curve(name, points))
    title = f"{family}, ranked globally, {TUNED_EPOCHS:g} epochs after pruning"
    return render_panels([Panel(title, "% of filters gone", "accuracy, %", curves)])
