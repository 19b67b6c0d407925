"""Networks come to be known: handed over, imported by a worker, named in specs. The caller commits."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from search_spaces.importing import ImportSettings
from search_spaces.spec import Family
from service import leases
from service.errors import NameTakenError, ProblemError
from service.models import ImportedNetwork
from service.networks.queries import find_network
from service.queue import TaskName, send_after_commit
from service.states import JobState
from service.uploads import Upload


class ImportFailedError(ProblemError):
    slug = "import-failed"
    title = "The network could not be imported"


def add_network(session: Session, name: str, upload: Upload, settings: ImportSettings) -> ImportedNetwork:
    """Have a file imported under a name.

    The same file with the same settings is the same network. A name whose import has failed is free again.

    Raises:
        NameTakenError: another network has it.
    """
    if name in set(Family):
        raise NameTakenError(f"{name!r} is a family of the catalog; choose another name")
    told = settings.model_dump(mode="json", exclude_defaults=True)
    row = find_network(session, name)
    if row is not None and row.state != JobState.FAILED:
        if (row.upload_digest, row.settings) != (upload.digest, told):
            raise NameTakenError(f"another network was imported as {name!r}; choose another name")
        return row
    if row is not None:
        # Another row, so that whoever may still work on the failed one cannot finish this one.
        session.delete(row)
        session.flush()
    row = ImportedNetwork(
        id=str(uuid.uuid4()),
        name=name,
        filename=upload.filename,
        upload_digest=upload.digest,
        settings=told,
        state=str(JobState.QUEUED),
    )
    session.add(row)
    session.flush()
    send_after_commit(session, TaskName.IMPORT, row.id)
    return row


def finish_import(session: Session, network_id: str, attempt: int, result: Mapping[str, Any]) -> bool:
    """Record what the file has become. False: the lease was lost."""
    columns = {key: result[key] for key in ("base_key", "network", "report")}
    return leases.finish(session, ImportedNetwork, network_id, attempt, JobState.SUCCEEDED, activity=None, **columns)


def fail_import(session: Session, network_id: str, attempt: int, problem: Mapping[str, Any]) -> bool:
    """End it as failed. False: the lease was lost."""
    reason = str(problem.get("detail", ""))
    columns = {"activity": None, "problem": dict(problem)}
    return leases.finish(session, ImportedNetwork, network_id, attempt, JobState.FAILED, reason, **columns)
