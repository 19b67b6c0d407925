"""Exporting a trial: its file is rebuilt from what was recorded, checked against that, and stored as an artifact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from service.artifacts.actions import add_artifact
from service.db import transaction
from service.exports.actions import finish_export
from service.exports.queries import final_weights, weights_of
from service.leases import claim as claim_row
from service.models import Export, Finalist, Refinement, Search, Trial
from service.queue import TaskName
from workers.evaluator import JobName
from workers.workplace import LEASE_S, Claim, Workplace, arguments_of, work

DEADLINE_S = 3600.0
MEDIA_TYPE = "application/onnx"


def export_trial(workplace: Workplace, export_id: str) -> None:
    with transaction(workplace.engine) as session:
        attempt = claim_row(session, Export, export_id, workplace.owner, LEASE_S)
        if attempt is None:
            return
        export = session.get_one(Export, export_id)
        final = final_weights(session, export.trial_id)
        arguments, weights = _arguments(session, export, final), weights_of(final)
    claim = Claim(TaskName.EXPORT, export_id, attempt)  # an export outlives its search
    ending = work(workplace, claim, JobName.EXPORT, arguments, DEADLINE_S)
    if ending is None:
        return
    with transaction(workplace.engine) as session:
        files = _add_artifacts(session, ending.result)
        report = {**ending.result["report"], "weights": weights} if ending.result else None
        finish_export(session, export_id, attempt, ending.state, ending.reason, files=files, report=report)


def _add_artifacts(session: Session, result: Mapping[str, Any]) -> list[str]:
    """Digests of the exported file, and of those that come with it; nothing when there is no result."""
    if not result:
        return []
    model = {"digest": result["artifact_digest"], "filename": result["filename"], "media_type": MEDIA_TYPE}
    files = [model | {"size_bytes": result["size_bytes"]}, *result["files"]]
    for file in files:
        add_artifact(session, file["digest"], file["filename"], file["media_type"], file["size_bytes"])
    return [file["digest"] for file in files]


def _arguments(session: Session, export: Export, final: Refinement | Finalist | None) -> dict[str, Any]:
    """A refined trial is exported as it was refined last, a finalist as it was confirmed, any other as searched."""
    trial, search = session.get_one(Trial, export.trial_id), session.get_one(Search, export.search_id)
    return {
        **arguments_of(search),
        "design": trial.design,
        "weights_digest": None if final is None else final.weights_digest,
        "reported": trial.values if final is None else final.values,
        "found": {
            "trial": trial.number,
            "sampler": "" if trial.baseline else search.sampler.get("name", ""),
            "rungs": trial.details.get("rungs", []),
        },
    }
