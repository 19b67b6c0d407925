"""The five jobs of a search, as functions of a spec, a design and files under the home folder.

prepare, then evaluate many times, confirm the best, refine some, export one. What users bring comes in by
`workers.bringing`. They know no database and no queue: the evaluator process calls them, and whoever supervises it
writes down what they return. What they raise fails one job; `workers.evaluator.classify` says how.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search_spaces.apply import apply
from search_spaces.check import scores_of
from search_spaces.costs import network_workload, symbolic_values
from search_spaces.datasets import DatasetInfo
from search_spaces.design import Design
from search_spaces.design_keys import design_key
from search_spaces.foresight import Foresight
from search_spaces.known import Sources
from search_spaces.network import Network
from search_spaces.objectives import Outcome
from search_spaces.rungs import Standing
from search_spaces.spec import SearchSpec
from service.artifacts.store import ARTIFACTS, put_bytes
from workers.activation_maps import MOST_IMAGES, code_maps, count_maps, total_values
from workers.anchor import measure_base
from workers.appraise import Details, build_finalist, final_values
from workers.attempt import Attempt
from workers.base import Base, BaseUnavailableError, base_key, get_base, get_settled, load_base
from workers.budget_bases import measure_budget_bases
from workers.candidate import timed
from workers.climb import climb
from workers.export import export_file
from workers.fold import fold_batch_norms
from workers.host_lock import training
from workers.material import base_of, dataset_of, network_of, splits_of
from workers.onnx_writer import write_onnx
from workers.origin import score_base, warnings_about
from workers.progress import Progress, ignore_progress
from workers.recipe import recipe_of
from workers.refine import refine_design
from workers.splits import Splits, normalise
from workers.stored_candidate import arrays_of
from workers.versions import computing_versions
from workers.weights_file import weights_as_bytes
from workers.workbench import device_called, set_up, use_threads


def prepare(spec: SearchSpec, sources: Sources, home: Path, progress: Progress = ignore_progress) -> dict[str, Any]:
    """Get the data set, the base and its anchor latency into the home folder; quick when they are there.

    Returns:
        base_key; values: of the base on `score`; anchor: its latency; budget_bases: what budgets are relative to, where
        that had to be measured; report: where it comes from; splits: their digests; computed: the threads and versions
        that designs are tried with; warnings: for people; seconds, stage_s; cached: whether the base was there.

    Raises:
        DatasetUnavailableError: no source has the data set.
        BaseUnavailableError: an imported network is not here.
        TrainingDivergedError: the recipe does not suit the network.
    """
    seconds: dict[str, float] = {}
    threads = use_threads(spec)
    dataset, network = dataset_of(spec, sources, home), network_of(spec, sources, home)
    with timed(seconds, "dataset"):
        splits = splits_of(spec, sources, network.input, _class_names(sources, home), home, progress)
    with timed(seconds, "base"):
        base, cached = _get_base(spec, sources, dataset, network, splits, home, progress)
    with timed(seconds, "score"):
        progress("score", 0.0, "scoring the base")
        scored = splits.score.first(spec.evaluation.most_score_images)
        found = score_base(base, scored, scores_of(spec, dataset), home, threads)
    with timed(seconds, "count_activations"):
        activations = _count_base(spec, base, splits, threads)
    with timed(seconds, "anchor"):
        anchor = _anchor_report(spec, base, home, progress)
        bases = measure_budget_bases(spec, sources, base, anchor, home)
    return {
        "base_key": base.key,
        "values": found.values | activations,
        "anchor": anchor,
        "budget_bases": bases,
        "seconds": sum(seconds.values()),
        "stage_s": seconds,
        "splits": splits.digests(),
        "computed": {"threads": threads, "versions": computing_versions()},
        "cached": cached,
        "report": {name: value for name, value in base.report.items() if name not in _LONG_PARTS},
        "warnings": warnings_about(found, dataset, scored),
    }


def evaluate(
    spec: SearchSpec,
    sources: Sources,
    design: Design,
    base_key: str,
    home: Path,
    progress: Progress = ignore_progress,
    foresight: Foresight | None = None,
    standing: Standing | None = None,
) -> Outcome:
    """Try one design: what costs nothing is judged first, accuracy last; a limit missed ends it there.

    Where the spec has steps before its full evaluation, so does what promises too little at one of them.

    Args:
        spec: of the search.
        sources: what its names stand for.
        design: to try.
        base_key: of the base it comes from.
        home: where everything is.
        progress: told each step.
        foresight: what the device's cost model says; the device is then asked only where that is not enough.
        standing: what others were worth at those steps and in the end; None for a trial that is not to be stopped.

    Raises:
        DesignError: the design does not fit the network.
        PrecisionMismatch: the runtime would not execute the declared precisions.
    """
    attempt = Attempt(spec, dict(symbolic_values(apply(network_of(spec, sources, home), design))), foresight)
    if outcome := attempt.missed():
        return outcome
    attempt.predict()
    if outcome := attempt.missed():
        return outcome
    return climb(set_up(spec, sources, base_key, home), design, attempt, standing, progress)


def confirm(
    spec: SearchSpec,
    sources: Sources,
    design: Design,
    base_key: str,
    home: Path,
    progress: Progress = ignore_progress,
) -> dict[str, Any]:
    """Fine-tune a finalist where that helps, measure it again, and score it on `confirm`, which nothing was chosen by.

    Returns:
        values (scores with their 95% intervals, latency, sizes), the artifact of its weights, and evidence.

    Raises:
        TrainingDivergedError: fine-tuning diverged.
        FloatingPointError: the network's output is not finite.
    """
    bench = set_up(spec, sources, base_key, home)
    details: Details = {"stage_s": {}}
    candidate, model = build_finalist(bench, design, details, progress)
    origin = {"base": base_key, "design": design_key(bench.base.network, design)}
    digest = put_bytes(home / ARTIFACTS, weights_as_bytes(arrays_of(candidate), origin))
    progress("measure", 0.0, "measuring and scoring the finalist")
    values = final_values(bench, design, candidate.network, model, bench.splits.confirm, details)
    return {"values": values, "weights_digest": digest, "details": details}


def export(
    spec: SearchSpec,
    sources: Sources,
    design: Design,
    base_key: str,
    weights_digest: str | None,
    reported: Mapping[str, float],
    home: Path,
    progress: Progress = ignore_progress,
    found: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write a design's file, and find out from the stored file itself whether it does what was reported.

    Args:
        spec: of the search.
        sources: what its names stand for.
        design: to export.
        base_key: of the base it comes from.
        weights_digest: what `confirm` stored; None rebuilds the trial's candidate.
        reported: the values that the user was shown, compared with the file's own.
        home: where everything is.
        progress: told each step.
        found: how a search came to the design, where one did, see `workers.report.facts.Exported`.

    Returns:
        artifact_digest, filename, size_bytes; files: report, weights, programs; and the report: reported, remeasured,
        differences.

    Raises:
        PrecisionMismatch: the file executes in other precisions than the design declares.
        FileMismatchError: the file holds another network than was reported.
    """
    bench = set_up(spec, sources, base_key, home)
    return export_file(bench, design, weights_digest, reported, home / ARTIFACTS, progress, found or {})


def refine(
    spec: SearchSpec,
    sources: Sources,
    design: Design,
    base_key: str,
    weights_digest: str | None,
    epochs: float,
    learning_rate: float,
    home: Path,
    progress: Progress = ignore_progress,
) -> dict[str, Any]:
    """Train a design on for long, from what its search has left.

    Args:
        spec: of the search.
        sources: what its names stand for.
        design: to refine.
        base_key: of the base it comes from.
        weights_digest: what `confirm` stored; None rebuilds the trial's candidate.
        epochs: passes over `train`.
        learning_rate: the peak.
        home: where everything is.
        progress: told each step.

    Returns:
        before: scores on `confirm` of what it began with; values: all that is told of what came of it, scored there
        too; weights_digest, details.

    Raises:
        TrainingDivergedError: training diverged.
        FloatingPointError: the network's output is not finite.
    """
    bench = set_up(spec, sources, base_key, home)
    return refine_design(bench, design, weights_digest, epochs, learning_rate, home / ARTIFACTS, progress)


_LONG_PARTS = ("groups", "class_names", "added_norms")
"""Of an imported network's report: said with the network, not with each search."""


def _class_names(sources: Sources, home: Path) -> tuple[str, ...]:
    """Of the outputs of an imported network. A catalog network is trained on the data set's own."""
    return () if sources.network is None else base_of(sources.network, home).class_names


def _get_base(
    spec: SearchSpec,
    sources: Sources,
    dataset: DatasetInfo,
    network: Network,
    splits: Splits,
    home: Path,
    progress: Progress,
) -> tuple[Base, bool]:
    """The base, and whether it was there already."""
    if sources.network is not None:
        with training():
            return get_settled(base_of(sources.network, home), splits, home), True
    recipe = recipe_of(spec, dataset)
    cached = _has_base(base_key(network, splits.dataset, splits.train.digest, recipe), home)
    with training() as turn:
        return get_base(network, splits, recipe, home, progress, turn.yield_), cached


def _has_base(key: str, home: Path) -> bool:
    try:
        load_base(key, home)
    except BaseUnavailableError:
        return False
    return True


def _count_base(spec: SearchSpec, base: Base, splits: Splits, threads: int) -> dict[str, float]:
    """What is told of the base's own activation maps; empty when the spec has no use for it."""
    if not spec.why_maps:
        return {}
    calibration = splits.calibrate.first(min(MOST_IMAGES, spec.evaluation.most_calibration_images))
    fit_images, images = (
        normalise(split.images, base.network.input) for split in (calibration, splits.score.first(MOST_IMAGES))
    )
    network, weights = fold_batch_norms(base.network, base.weights)
    with training():
        counted = count_maps(network, write_onnx(network, weights), fit_images, images, threads=threads)
    return total_values(counted, code_maps(counted, spec.evaluation.activation_codec))


def _anchor_report(spec: SearchSpec, base: Base, home: Path, progress: Progress) -> dict[str, Any]:
    """What the base itself takes, by metric, with the measurements; empty when the spec names no device."""
    if spec.device is None:
        return {}
    device = device_called(spec.device)
    progress("anchor", 0.0, f"measuring the base on {spec.device}")
    measured = measure_base(base, device, home)
    return {metric: one["median"] for metric, one in measured.items()} | {
        "measurements": list(measured.values()),
        "workload_digest": network_workload(base.network).digest,
    }
