"""A design trained on for long: what its search has found is where it begins, and what stays if it becomes worse.

Knows no rows and no searches. Which weights stay is decided on `score`, as for finalists; what is reported is found on
`confirm`, which nothing was chosen by.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.numpy import save

from search_spaces.apply import apply, design_key
from search_spaces.design import Design, Kind
from search_spaces.methods import method_of
from search_spaces.spec import Calibration, NetworkSpec
from service.artifacts.store import put_bytes
from workers.appraise import Details, final_values, has_helped, score_split, write_checked
from workers.candidate import Candidate, finish_candidate
from workers.export import rebuild
from workers.host_lock import training
from workers.progress import Progress
from workers.train import fine_tuning, recipe_for, train
from workers.workbench import Workbench


def refine_design(
    bench: Workbench,
    design: Design,
    weights_digest: str | None,
    epochs: float,
    learning_rate: float,
    artifacts: Path,
    progress: Progress,
) -> dict[str, Any]:
    """See `workers.jobs.refine`."""
    progress("build", 0.0, "building the design")
    details: Details = {"stage_s": {}}
    begun = rebuild(bench, design, weights_digest, artifacts, details)
    trained = _train_on(bench, design, begun, epochs, learning_rate, progress)
    progress("score", 0.0, "scoring it before and after")
    with training():
        models = [write_checked(candidate, details) for candidate in (begun, trained)]
    before = score_split(bench, models[0], bench.splits.confirm, details, with_intervals=True)
    is_kept = has_helped(bench, models[0], models[1], details)
    refined, model = (trained, models[1]) if is_kept else (begun, models[0])
    origin = {"base": bench.base.key, "design": design_key(bench.base.network, design)}
    digest = put_bytes(artifacts, save(refined.raw_weights, origin))
    progress("measure", 0.0, "measuring what came of it")
    values = final_values(bench, design, refined.network, model, bench.splits.confirm, details)
    return {"before": before, "values": values, "weights_digest": digest, "details": details}


def _train_on(
    bench: Workbench, design: Design, begun: Candidate, epochs: float, learning_rate: float, progress: Progress
) -> Candidate:
    applied = apply(bench.base.network, design)
    network = bench.spec.network
    usual = recipe_for(bench.dataset, network.family if isinstance(network, NetworkSpec) else None)
    recipe = fine_tuning(usual, epochs, learning_rate)
    with training() as turn:
        weights = train(applied, begun.raw_weights, bench.splits.train, recipe, progress, turn.yield_)
        calibration = Calibration(method_of(design, Kind.CALIBRATION, bench.spec))
        return finish_candidate(
            applied,
            weights,
            bench.observed,
            calibration,
            dict(begun.stage_s),
            bench.threads,
            bias_correction=bench.spec.evaluation.bias_correction,
        )
