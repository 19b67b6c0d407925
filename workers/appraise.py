"""Builds a design's file and finds out what it is worth: what executes, how fast, how good.

Each step adds its evidence to `details`, a JSON-safe dictionary that is stored with the trial: `stage_s` (seconds of
each stage), `executed` (layer to operator), `emulated` with `emulation` (what is computed in wider arithmetic than
declared), `measurements`, `images`. Knows nothing of limits or of rows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from search_spaces.apply import apply
from search_spaces.costs import network_workloads, symbolic_values
from search_spaces.design import Design, Kind
from search_spaces.methods import method_of
from search_spaces.network import Network
from search_spaces.objectives import DEVICE_METRICS, Direction, Metric
from search_spaces.quantisation import why_emulated
from search_spaces.spec import Calibration, NetworkSpec
from workers.anchor import main_precision
from workers.candidate import Candidate, FineTune, build_candidate, timed
from workers.hardware.base import Deployed
from workers.host_lock import TrainingTurn, measuring, training
from workers.onnx_session import check_executed
from workers.onnx_writer import write_onnx
from workers.progress import Progress, ignore_progress
from workers.score import run_file, score_intervals, score_outputs
from workers.splits import Split
from workers.train import fine_tuning, recipe_for, train
from workers.weights import Weights
from workers.workbench import Workbench

Details = dict[str, Any]


def build(
    bench: Workbench,
    design: Design,
    details: Details,
    progress: Progress = ignore_progress,
    *,
    is_finalist: bool = False,
) -> tuple[Candidate, bytes]:
    """The candidate of a design, and its file; a finalist is fine-tuned as the spec says for finalists.

    Raises:
        DesignError: the design does not fit the network.
        PrecisionMismatch: the runtime would not execute the declared precisions.
        TrainingDivergedError: fine-tuning diverged.
    """
    evaluation = bench.spec.evaluation
    with training() as turn:
        candidate = build_candidate(
            bench.base,
            design,
            bench.observed,
            evaluation.reconstruct,
            bench.atom_scores(method_of(design, Kind.IMPORTANCE, bench.spec)),
            Calibration(method_of(design, Kind.CALIBRATION, bench.spec)),
            _fine_tune(bench, turn, progress, is_finalist),
            bench.threads,
            bias_correction=evaluation.bias_correction,
        )
        return candidate, write_checked(candidate, details)


def build_finalist(
    bench: Workbench, design: Design, details: Details, progress: Progress = ignore_progress
) -> tuple[Candidate, bytes]:
    """The candidate of a finalist: fine-tuned as the spec says, or as it was tried where that is better on `score`.

    A base that was trained on more images than are here can lose by training on these. Raises as `build`.
    """
    if not bench.spec.evaluation.finalists.finetune_epochs:
        return build(bench, design, details, progress)
    tuned = build(bench, design, details, progress, is_finalist=True)
    tried = build(bench, design, {"stage_s": {}})
    is_kept = has_helped(bench, tried[1], tuned[1], details)
    return tuned if is_kept else tried


def has_helped(bench: Workbench, before: bytes, after: bytes, details: Details) -> bool:
    """Whether training has made a file no worse on `score`; `fine_tuning` of the details tells."""
    found = {"before": _main_score(bench, before), "after": _main_score(bench, after)}
    is_maximised = bench.main_direction is Direction.MAXIMIZE
    is_kept = found["after"] >= found["before"] if is_maximised else found["after"] <= found["before"]
    details["fine_tuning"] = {"metric": bench.main_score, **found, "kept": is_kept}
    return is_kept


def _main_score(bench: Workbench, model: bytes) -> float:
    split = bench.splits.score.first(bench.spec.evaluation.most_score_images)
    return score_split(bench, model, split, {"stage_s": {}})[bench.main_score]


def write_checked(candidate: Candidate, details: Details, metadata: Mapping[str, str] | None = None) -> bytes:
    """The candidate's file, once it is known that the runtime executes it as declared.

    Raises:
        PrecisionMismatch: it would not.
    """
    stage_s = details["stage_s"] = dict(candidate.stage_s)
    with timed(stage_s, "write"):
        model = write_onnx(candidate.network, candidate.weights, candidate.ranges, metadata=metadata)
    with timed(stage_s, "check"):
        details["executed"] = check_executed(candidate.network, model)
    if reason := why_emulated(candidate.network):
        details |= {"emulated": True, "emulation": reason}
    return model


def measure(
    bench: Workbench,
    design: Design,
    deployed: Deployed,
    details: Details,
    wanted: Collection[Metric] = DEVICE_METRICS,
) -> dict[str, float]:
    """What the spec's device tells of a network, by metric; nothing when the spec names no device."""
    if bench.device is None:
        return {}
    capabilities = bench.device.capabilities()
    if capabilities.simulated:
        results = bench.device.measure(deployed)
        anchored = {}
    else:
        precision = main_precision(apply(bench.base.network, design))
        with timed(details["stage_s"], "anchor"):
            anchor = bench.anchor_in(precision)
        with measuring(), timed(details["stage_s"], "measure"):
            results = bench.device.measure(deployed, anchor, wanted=wanted)
        anchored = {"anchor_precision": str(precision)}
    whole, operators = network_workloads(deployed.network)
    details["measurements"] = [
        result.to_json()
        | anchored
        | {
            "device": capabilities.name,
            "fingerprint": capabilities.fingerprint,
            "workload": whole.to_json(),
            "operators": [operator.to_json() for operator in operators],
        }
        for result in results.values()
    ]
    return {metric: result.median for metric, result in results.items()}


def score_split(
    bench: Workbench, model: bytes, split: Split, details: Details, *, with_intervals: bool = False
) -> dict[str, float]:
    """How good a file's outputs for a split are, by the name of each score; `<score>_low` and `_high` if wanted.

    Raises:
        FloatingPointError: its output is not finite.
    """
    with training(), timed(details["stage_s"], "score"):
        outputs = run_file(model, split, bench.base.network.input, bench.threads)
        values = score_outputs(bench.scores, outputs, split.labels)
        if with_intervals:
            values |= score_intervals(bench.scores, outputs, split.labels)
    details["images"] = {"split": split.name, "count": len(split), "digest": split.digest}
    return values


def final_values(
    bench: Workbench, design: Design, network: Network, model: bytes, split: Split, details: Details
) -> dict[str, float]:
    """All that is reported of a file that may be handed out; `network` is the one that it was written from."""
    values = {
        **symbolic_values(network),
        "file_bytes": len(model),
        **measure(bench, design, Deployed(network, model), details),
    }
    return values | score_split(bench, model, split, details, with_intervals=True) | {"images": len(split)}


def _fine_tune(bench: Workbench, turn: TrainingTurn, progress: Progress, is_finalist: bool) -> FineTune | None:
    """What the spec asks for: the epochs of every candidate, then those of a finalist."""
    evaluation = bench.spec.evaluation
    rounds = [(evaluation.finetune_epochs, evaluation.learning_rate)]
    if is_finalist:
        rounds.append((evaluation.finalists.finetune_epochs, evaluation.finalists.learning_rate))
    rounds = [(epochs, learning_rate) for epochs, learning_rate in rounds if epochs > 0]
    if not rounds:
        return None
    network = bench.spec.network
    recipe = recipe_for(bench.dataset, network.family if isinstance(network, NetworkSpec) else None)

    def fine_tune(network: Network, weights: Weights) -> Weights:
        for epochs, learning_rate in rounds:
            tuning = fine_tuning(recipe, epochs, learning_rate)
            weights = train(network, weights, bench.splits.train, tuning, progress, turn.yield_)
        return weights

    return fine_tune
