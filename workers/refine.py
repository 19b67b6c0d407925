"""A design trained on for long: what its search has found is where it begins, and what stays if it becomes worse.

Knows no rows and no searches. Which weights stay is decided on `score`, as for finalists; what is reported is found on
`confirm`, which nothing was chosen by.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from search_spaces.apply import apply
from search_spaces.design import Design
from search_spaces.design_keys import design_key
from service.artifacts.store import put_bytes
from workers.appraise import Details, final_values, has_helped, score_split, train_through_rounding, write_checked
from workers.candidate import Candidate, finish_candidate
from workers.export import rebuild
from workers.host_lock import training
from workers.progress import Progress
from workers.stored_candidate import REFINED, arrays_of
from workers.tune import tune
from workers.weights_file import weights_as_bytes
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
    if is_kept:
        origin[REFINED] = json.dumps({"epochs": epochs, "learning_rate": learning_rate})
    digest = put_bytes(artifacts, weights_as_bytes(arrays_of(refined), origin))
    progress("measure", 0.0, "measuring what came of it")
    values = final_values(bench, design, refined.network, model, bench.splits.confirm, details)
    return {"before": before, "values": values, "weights_digest": digest, "details": details}


def _train_on(
    bench: Workbench, design: Design, begun: Candidate, epochs: float, learning_rate: float, progress: Progress
) -> Candidate:
    applied = apply(bench.base.network, design)
    with training() as turn:
        weights = tune(bench, applied, begun.raw_weights, epochs, learning_rate, progress, turn)
        finished = finish_candidate(
            applied, weights, bench.observed, bench.quantising_of(design), dict(begun.stage_s), bench.threads
        )
        return train_through_rounding(bench, design, finished, turn, progress, is_finalist=True, least_epochs=epochs)
