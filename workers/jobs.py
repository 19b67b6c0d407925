"""The four jobs of a worker, as functions of a spec, a design and files under the home folder.

prepare, then evaluate many times, confirm the best, export one. They know no database and no queue: the
evaluator process calls them, and whoever supervises it writes down what they return. What they raise
fails one job; `workers.evaluator.classify` says how.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.numpy import save

from search_spaces.apply import apply, design_key
from search_spaces.catalog import build_for
from search_spaces.costs import symbolic_values
from search_spaces.design import Design
from search_spaces.objectives import Metric, Outcome, TrialState
from search_spaces.spec import SearchSpec
from service.artifacts.store import put_bytes
from workers.anchor import get_anchor
from workers.appraise import Details, build, final_values, measure, score_split
from workers.base import Base, BaseUnavailableError, base_key, get_base, load_base
from workers.candidate import timed
from workers.datasets import load_dataset
from workers.export import export_file
from workers.host_lock import training
from workers.limits import missed_limits
from workers.progress import Progress, ignore_progress
from workers.train import recipe_for
from workers.workbench import device_called, set_up, splits_of, use_threads

ARTIFACTS = "artifacts"
"""Folder under home that holds files by their digest."""


def prepare(spec: SearchSpec, home: Path, progress: Progress = ignore_progress) -> dict[str, Any]:
    """Get the data set, the base and its anchor latency into the home folder; quick when they are there.

    Raises:
        DatasetUnavailableError: no source has the data set.
        TrainingDivergedError: the recipe does not suit the network.
    """
    seconds: dict[str, float] = {}
    use_threads(spec)
    with timed(seconds, "dataset"):
        progress("dataset", 0.0, f"getting {spec.dataset.name}")
        load_dataset(spec.dataset.name, home, progress)
        splits = splits_of(spec.dataset.name, home)
    network, recipe = build_for(spec), recipe_for(spec.network.family, spec.dataset.name)
    cached = _has_base(base_key(network, splits.dataset, splits.train.digest, recipe), home)
    with timed(seconds, "base"), training() as turn:
        base = get_base(network, splits, recipe, home, progress, turn.yield_)
    with timed(seconds, "anchor"):
        anchor = _anchor_report(spec, base, home, progress)
    return {
        "base_key": base.key,
        "accuracy": base.accuracy,
        "anchor": anchor,
        "seconds": sum(seconds.values()),
        "stage_s": seconds,
        "splits": splits.digests(),
        "cached": cached,
        "report": base.report,
    }


def evaluate(
    spec: SearchSpec, design: Design, base_key: str, home: Path, progress: Progress = ignore_progress
) -> Outcome:
    """Try one design: what costs nothing is judged first, accuracy last; a limit missed ends it there.

    Raises:
        DesignError: the design does not fit the network.
        PrecisionMismatch: the runtime would not execute the declared precisions.
    """
    values = dict(symbolic_values(apply(build_for(spec), design)))
    details: Details = {"stage_s": {}}
    if reason := missed_limits(spec.limits, values):
        return Outcome(TrialState.INFEASIBLE, values, reason, details)
    bench = set_up(spec, base_key, home)
    progress("build", 0.0, "building the candidate")
    _, model = build(bench, design, details, progress)
    progress("measure", 0.0, "measuring latency")
    values |= measure(bench, design, model, details)
    if reason := missed_limits(spec.limits, values):
        return Outcome(TrialState.INFEASIBLE, values, reason, details)
    progress("score", 0.0, "scoring")
    try:
        result = score_split(bench, model, bench.splits.score.first(spec.evaluation.score_images), details)
    except FloatingPointError as error:
        return Outcome(TrialState.FAILED, values, str(error), details)
    values[Metric.ACCURACY] = result.accuracy
    reason = missed_limits(spec.limits, values)
    return Outcome(TrialState.INFEASIBLE if reason else TrialState.SUCCEEDED, values, reason, details)


def confirm(
    spec: SearchSpec, design: Design, base_key: str, home: Path, progress: Progress = ignore_progress
) -> dict[str, Any]:
    """Fine-tune a finalist, measure it again, and score it on `confirm`, which nothing was chosen by.

    Returns:
        values (accuracy with its 95% interval, latency, sizes), the artifact of its weights, and evidence.

    Raises:
        TrainingDivergedError: fine-tuning diverged.
        FloatingPointError: the network's output is not finite.
    """
    bench = set_up(spec, base_key, home)
    details: Details = {"stage_s": {}}
    candidate, model = build(bench, design, details, progress, is_finalist=True)
    origin = {"base": base_key, "design": design_key(bench.base.network, design)}
    digest = put_bytes(home / ARTIFACTS, save(candidate.raw_weights, origin))
    progress("measure", 0.0, "measuring and scoring the finalist")
    values = final_values(bench, design, candidate.network, model, bench.splits.confirm, details)
    return {"values": values, "weights_digest": digest, "details": details}


def export(
    spec: SearchSpec,
    design: Design,
    base_key: str,
    weights_digest: str | None,
    reported: Mapping[str, float],
    home: Path,
    progress: Progress = ignore_progress,
) -> dict[str, Any]:
    """Write a design's file, and find out from the stored file itself whether it does what was reported.

    Args:
        spec: of the search.
        design: to export.
        base_key: of the base it comes from.
        weights_digest: what `confirm` stored; None rebuilds the trial's candidate.
        reported: the values that the user was shown, compared with the file's own.
        home: where everything is.
        progress: told each step.

    Returns:
        artifact_digest, filename, size_bytes, and the report: reported, remeasured, differences.

    Raises:
        PrecisionMismatch: the file executes in other precisions than the design declares.
        FileMismatchError: the file holds another network than was reported.
    """
    bench = set_up(spec, base_key, home)
    return export_file(bench, design, weights_digest, reported, home / ARTIFACTS, progress)


def _has_base(key: str, home: Path) -> bool:
    try:
        load_base(key, home)
    except BaseUnavailableError:
        return False
    return True


def _anchor_report(spec: SearchSpec, base: Base, home: Path, progress: Progress) -> dict[str, Any]:
    """The base's own latency with its measurement; empty when the spec names no device."""
    if spec.device is None:
        return {}
    progress("anchor", 0.0, f"measuring the base on {spec.device}")
    measurement = get_anchor(base, device_called(spec.device), home)[1]
    return {Metric.LATENCY_S: measurement["median"], "measurement": measurement}
