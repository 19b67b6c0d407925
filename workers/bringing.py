"""The jobs that take in what users bring: a network, a data set. They know no database and no queue.

What cannot be used is no failure of the job: it is told, with every reason, as the job's result.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from search_spaces.datasets import dataset_to_json
from search_spaces.importing import ImportSettings
from search_spaces.network import network_to_json
from service.artifacts.store import ARTIFACTS, open_path, put_bytes
from workers.base import store_imported
from workers.datasets.indexing import index_dataset as make_index
from workers.datasets.kept import UPLOADS, find_archives, find_dataset, keep_dataset
from workers.datasets.preview import preview
from workers.datasets.refusal import DatasetRefusedError
from workers.host_lock import training
from workers.importing.faults import ImportRefusedError
from workers.importing.import_file import import_file
from workers.progress import Progress, ignore_progress, yielding


def import_network(
    upload_digest: str, name: str, settings: ImportSettings, home: Path, progress: Progress = ignore_progress
) -> dict[str, Any]:
    """Make a base of a file.

    Returns:
        base_key, network, report; or `refused`: what is wrong, with parts and remedies.
    """
    path = open_path(home / UPLOADS, upload_digest)
    try:
        with training() as turn:
            imported = import_file(path, name, settings, yielding(progress, turn.yield_))
    except ImportRefusedError as error:
        return {"refused": _told((fault.part, fault.message) for fault in error.faults), "count": len(error.faults)}
    progress("import", 0.9, "keeping the weights")
    key = store_imported(imported.network, imported.weights, imported.report, home)
    return {"base_key": key, "network": network_to_json(imported.network), "report": imported.report}


def index_dataset(
    archives: Sequence[str], name: str, parent_digest: str | None, home: Path, progress: Progress = ignore_progress
) -> dict[str, Any]:
    """Look at every image of a data set and keep what was found.

    Args:
        archives: digests of all archives of this version, the oldest first.
        name: of the data set.
        parent_digest: of the version that the last archive adds to.
        home: where everything is.
        progress: told the share of images that were looked at.

    Returns:
        digest, info, report, previews: a PNG of each class as an artifact; or `refused`: what is wrong.
    """
    paths = find_archives(archives, home)
    earlier = None if parent_digest is None else find_dataset(parent_digest, home).index
    try:
        with training() as turn:
            index = make_index(paths, name, earlier, yielding(progress, turn.yield_))
    except DatasetRefusedError as error:
        return {"refused": _told((fault.part, fault.message) for fault in error.faults), "count": error.count}
    progress("preview", 1.0, "drawing a few images of each class")
    drawn = preview(index, paths)
    digest = keep_dataset(index, archives, home)
    return {
        "digest": digest,
        "info": dataset_to_json(find_dataset(digest, home).info),
        "report": index.report,
        "previews": [
            {"name": label, "digest": put_bytes(home / ARTIFACTS, image), "size_bytes": len(image)}
            for label, image in drawn.items()
        ],
    }


def _told(faults: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"part": part, "detail": message} for part, message in faults]
