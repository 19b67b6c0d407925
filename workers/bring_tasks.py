"""Taking in what users bring: claim its row, have the evaluator look at it, write down what it has become."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.datasets.actions import IndexFailedError, archives_of, fail_index, finish_index
from service.db import transaction
from service.errors import ProblemError
from service.leases import claim as claim_row
from service.models import ImportedNetwork, OwnDataset
from service.networks.actions import ImportFailedError, fail_import, finish_import
from service.queue import TaskName
from service.states import JobState
from workers.evaluator import JobName
from workers.workplace import LEASE_S, Claim, Workplace, work

IMPORT_DEADLINE_S, INDEX_DEADLINE_S = 3600.0, 6 * 3600.0


def import_network(workplace: Workplace, network_id: str) -> None:
    with transaction(workplace.engine) as session:
        attempt = claim_row(session, ImportedNetwork, network_id, workplace.owner, LEASE_S)
        if attempt is None:
            return
        row = session.get_one(ImportedNetwork, network_id)
        arguments = {"upload_digest": row.upload_digest, "name": row.name, "settings": row.settings}
    claim = Claim(TaskName.IMPORT, network_id, attempt)
    ending = work(workplace, claim, JobName.IMPORT, arguments, IMPORT_DEADLINE_S)
    if ending is None:
        return
    with transaction(workplace.engine) as session:
        if ending.state is JobState.SUCCEEDED and "refused" not in ending.result:
            finish_import(session, network_id, attempt, ending.result)
        else:
            problem = _problem(ImportFailedError, ending.reason, ending.result)
            fail_import(session, network_id, attempt, problem.document())


def index_dataset(workplace: Workplace, dataset_id: str) -> None:
    with transaction(workplace.engine) as session:
        attempt = claim_row(session, OwnDataset, dataset_id, workplace.owner, LEASE_S)
        if attempt is None:
            return
        row = session.get_one(OwnDataset, dataset_id)
        parent = None if row.parent_id is None else session.get_one(OwnDataset, row.parent_id)
        arguments = {
            "name": row.name,
            "archives": archives_of(session, row),
            "parent_digest": None if parent is None else parent.digest,
        }
    claim = Claim(TaskName.INDEX, dataset_id, attempt)
    ending = work(workplace, claim, JobName.INDEX, arguments, INDEX_DEADLINE_S)
    if ending is None:
        return
    with transaction(workplace.engine) as session:
        if ending.state is JobState.SUCCEEDED and "refused" not in ending.result:
            finish_index(session, dataset_id, attempt, ending.result)
        else:
            problem = _problem(IndexFailedError, ending.reason, ending.result)
            fail_index(session, dataset_id, attempt, problem.document())


def _problem(kind: type[ProblemError], reason: str, result: Any) -> ProblemError:
    """Why it cannot be used; `faults` has every reason with its part."""
    refused: Sequence[dict[str, str]] = result.get("refused", ())
    if not refused:
        return kind(reason)
    first = ": ".join(text for text in (refused[0]["part"], refused[0]["detail"]) if text)
    more = int(result["count"]) - 1
    return kind(f"{first}; and {more:,} more" if more else first, extra={"faults": list(refused)})
