"""Builds a design's file and finds out what it is worth: what executes, how fast, how good.

Each step adds its evidence to `details`, a JSON-safe dictionary that is stored with the trial: `stage_s` (seconds of
each stage), `executed` (layer to operator), `emulated` with `emulation` (what is computed in wider arithmetic than
declared), `activations`, `measurements`, `images`. Knows nothing of limits or of rows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from search_spaces.activation_codes import CodecName
from search_spaces.apply import apply
from search_spaces.costs import network_workloads, symbolic_values
from search_spaces.design import Design, Kind
from search_spaces.methods import method_of
from search_spaces.network import Network
from search_spaces.objectives import DEVICE_METRICS, Direction, Metric
from search_spaces.quantisation import is_quantised_layer, why_emulated
from workers.activation_maps import MOST_IMAGES, code_maps, count_maps, total_values
from workers.anchor import main_precision
from workers.candidate import Candidate, FineTune, build_candidate, timed
from workers.fold import fold_batch_norms
from workers.hardware.base import Deployed
from workers.host_lock import TrainingTurn, measuring, training
from workers.onnx_session import check_executed
from workers.onnx_writer import write_onnx
from workers.progress import Progress, ignore_progress
from workers.score import run_file, score_intervals, score_outputs
from workers.splits import Split, normalise
from workers.tune import tune, tune_rounded
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
            bench.atom_scores(method_of(design, Kind.IMPORTANCE, bench.spec), turn.yield_),
            bench.quantising_of(design),
            _fine_tune(bench, turn, progress, is_finalist),
            bench.threads,
        )
        candidate = train_through_rounding(bench, design, candidate, turn, progress, is_finalist=is_finalist)
        return candidate, write_checked(candidate, details)


def train_through_rounding(
    bench: Workbench,
    design: Design,
    candidate: Candidate,
    turn: TrainingTurn,
    progress: Progress,
    *,
    is_finalist: bool,
    least_epochs: float = 0.0,
) -> Candidate:
    """The last transform, where the spec asks for it and something computes in integers; the caller holds `turn`.

    A design that is refined is trained for `least_epochs`, if the spec asks for fewer.

    Raises:
        TrainingDivergedError: it diverged.
    """
    evaluation = bench.spec.evaluation
    rung = evaluation.quantisation_aware
    if is_finalist and evaluation.finalists.quantisation_aware.epochs:
        rung = evaluation.finalists.quantisation_aware
    if not rung.epochs or not any(map(is_quantised_layer, candidate.network.compute_nodes())):
        return candidate
    rung = rung.model_copy(update={"epochs": max(rung.epochs, least_epochs)})
    with timed(candidate.stage_s, "train_rounded"):
        network, weights = fold_batch_norms(apply(bench.base.network, design), candidate.raw_weights)
        trained, ranges = tune_rounded(bench, network, weights, candidate.ranges, rung, progress, turn)
    return replace(candidate, weights=trained, ranges=ranges, is_rounded=True)


def build_finalist(
    bench: Workbench, design: Design, details: Details, progress: Progress = ignore_progress
) -> tuple[Candidate, bytes]:
    """The candidate of a finalist: fine-tuned as the spec says, or as it was tried where that is better on `score`.

    A base that was trained on more images than are here can lose by training on these. Raises as `build`.
    """
    finalists = bench.spec.evaluation.finalists
    if not (finalists.finetune_epochs or finalists.quantisation_aware.epochs):
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
    stage_s = details["stage_s"] = candidate.stage_s
    with timed(stage_s, "write"):
        model = write_onnx(candidate.network, candidate.weights, candidate.ranges, metadata=metadata)
    with timed(stage_s, "check"):
        details["executed"] = check_executed(candidate.network, model)
    if reason := why_emulated(candidate.network):
        details |= {"emulated": True, "emulation": reason}
    return model


@dataclass(frozen=True)
class Activations:
    """What is told of a file's activation maps: metrics, and mean bits of a value of each map that is coded."""

    values: Mapping[str, float] = field(default_factory=dict)
    coded_bits: Mapping[str, float] = field(default_factory=dict)


def count_activations(
    bench: Workbench, design: Design, network: Network, model: bytes, split: Split, details: Details
) -> Activations:
    """What the maps of a file take in the design's codec; nothing when the spec has no use for it.

    Codes are fitted to calibration images, and images of `split` are counted, `MOST_IMAGES` of each.

    Raises:
        DesignError: there is no such codec.
        FloatingPointError: a map has values that are not finite.
    """
    if not bench.spec.why_maps:
        return Activations()
    codec = CodecName(method_of(design, Kind.ACTIVATION_CODEC, bench.spec))
    images = normalise(split.first(MOST_IMAGES).images, bench.base.network.input)
    fitted_to = bench.observed.images[:MOST_IMAGES]
    with training(), timed(details["stage_s"], "count_activations"):
        counted = count_maps(network, model, fitted_to, images, threads=bench.threads)
        coded = code_maps(counted, codec)
    details["activations"] = {
        "codec": str(codec),
        "fit_images": len(fitted_to),
        "images": len(images),
        "maps": [asdict(one) for one in coded],
    }
    is_coded = codec is not CodecName.NONE
    return Activations(total_values(counted, coded), {one.tensor: one.coded_bits for one in coded} if is_coded else {})


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
    activations = count_activations(bench, design, network, model, split, details)
    values = {
        **symbolic_values(network),
        "file_bytes": len(model),
        **activations.values,
        **measure(bench, design, Deployed(network, model, activations.coded_bits), details),
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

    def fine_tune(network: Network, weights: Weights) -> Weights:
        for epochs, learning_rate in rounds:
            weights = tune(bench, network, weights, epochs, learning_rate, progress, turn)
        return weights

    return fine_tune
