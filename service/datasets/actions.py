"""Data sets come to be known: handed over, indexed by a worker, named in specs. The caller commits."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from search_spaces.datasets import DATASETS
from service import leases
from service.artifacts.actions import add_artifact
from service.datasets.queries import present_datasets
from service.errors import NameTakenError, ProblemError, StateConflictError
from service.models import OwnDataset
from service.queue import TaskName, send_after_commit
from service.states import JobState
from service.uploads import Upload


class IndexFailedError(ProblemError):
    slug = "dataset-refused"
    title = "The data set could not be used"


def add_dataset(session: Session, name: str, upload: Upload, *, extend: bool) -> OwnDataset:
    """Have an archive indexed under a name; returns the version that it makes, or has made.

    The same archive again is the same data set. Another one under the same name is refused, unless it is to add to
    what is there: then it makes another version. A version that has failed leaves no trace in later ones.

    Raises:
        NameTakenError: another data set has the name.
        StateConflictError: there is nothing to add to, or it is still being indexed.
    """
    query = select(OwnDataset).where(OwnDataset.name == name).order_by(OwnDataset.version.desc())
    versions = session.scalars(query).all()
    if name in DATASETS or (not versions and name in present_datasets(session)):
        raise NameTakenError(f"{name!r} comes with this service; choose another name")
    alive = [version for version in versions if version.state != JobState.FAILED]
    for version in alive:
        if version.upload_digest == upload.digest:
            return version
    if alive and not extend:
        raise NameTakenError(f"there is a data set {name!r} already; choose another name, or extend it")
    if extend and (not alive or alive[0].state != JobState.SUCCEEDED):
        what = f"{name!r} is still being indexed; wait for it" if alive else f"there is no data set {name!r} to extend"
        raise StateConflictError(what)
    row = OwnDataset(
        id=str(uuid.uuid4()),
        name=name,
        version=versions[0].version + 1 if versions else 1,
        filename=upload.filename,
        upload_digest=upload.digest,
        parent_id=alive[0].id if alive else None,
        state=str(JobState.QUEUED),
    )
    session.add(row)
    session.flush()
    send_after_commit(session, TaskName.INDEX, row.id)
    return row


def archives_of(session: Session, row: OwnDataset) -> list[str]:
    """Digests of all archives that a version is made of, the oldest first."""
    digests = [row.upload_digest]
    while row.parent_id is not None:
        row = session.get_one(OwnDataset, row.parent_id)
        digests.append(row.upload_digest)
    return digests[::-1]


def finish_index(session: Session, dataset_id: str, attempt: int, result: Mapping[str, Any]) -> bool:
    """Record what is in it, with a picture of each class. False: the lease was lost."""
    columns = {key: result[key] for key in ("digest", "info")}
    columns["report"] = {**result["report"], "previews": result["previews"]}
    for picture in result["previews"]:
        add_artifact(session, picture["digest"], "preview.png", "image/png", picture["size_bytes"])
    return leases.finish(session, OwnDataset, dataset_id, attempt, JobState.SUCCEEDED, activity=None, **columns)


def fail_index(session: Session, dataset_id: str, attempt: int, problem: Mapping[str, Any]) -> bool:
    """End it as failed. False: the lease was lost."""
    reason = str(problem.get("detail", ""))
    columns = {"activity": None, "problem": dict(problem)}
    return leases.finish(session, OwnDataset, dataset_id, attempt, JobState.FAILED, reason, **columns)
