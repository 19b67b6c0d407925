"""The index of a user's data set: what is known of each image, and the split that it is in. Files are read elsewhere.

A folder keeps it as `index.npz` (arrays, no pickle) and `report.json`. Rows ascend by digest, so that the same images
make the same index however they were packed.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np

from search_spaces.datasets import Task
from service.files import write_atomically
from workers.datasets.dataset import DatasetUnavailableError, big_endian

FORMAT_VERSION = 2
"""Part of every digest: raise it when the same archives no longer lead to the same index."""

INDEX_FILE, REPORT_FILE = "index.npz", "report.json"


class SplitNumber(IntEnum):
    """How the split of an image is kept."""

    TRAIN = 0
    CALIBRATE = 1
    SCORE = 2
    CONFIRM = 3
    TEST = 4


@dataclass(frozen=True)
class Rows:
    """One row for each image; all arrays are of one length, n.

    Attributes:
        digests: uint64, of mode, size and pixels; see `picture_digest`.
        labels: int64 numbers of classes, or float32 values.
        archives: int32, which of the data set's archives it is in.
        places: int64, where in that archive; see `Pictures`.
        widths, heights: int32 pixels, upright.
        is_colour: whether it has three channels.
        moments: float32 (n, 3, 2), mean and mean square of each channel's values in [0, 1]; of grey three times.
    """

    digests: np.ndarray
    labels: np.ndarray
    archives: np.ndarray
    places: np.ndarray
    widths: np.ndarray
    heights: np.ndarray
    is_colour: np.ndarray
    moments: np.ndarray

    def __len__(self) -> int:
        return len(self.digests)

    def take(self, rows: np.ndarray) -> Rows:
        """Those rows, by number or by a mask."""
        return Rows(*(getattr(self, field.name)[rows] for field in fields(self)))


def empty_rows(count: int, task: Task) -> Rows:
    """Rows to be filled."""
    return Rows(
        digests=np.zeros(count, np.uint64),
        labels=np.zeros(count, np.int64 if task is Task.CLASSIFICATION else np.float32),
        archives=np.zeros(count, np.int32),
        places=np.zeros(count, np.int64),
        widths=np.zeros(count, np.int32),
        heights=np.zeros(count, np.int32),
        is_colour=np.zeros(count, bool),
        moments=np.zeros((count, 3, 2), np.float32),
    )


def join_rows(parts: Sequence[Rows]) -> Rows:
    return Rows(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Rows)))


@dataclass(frozen=True)
class Index:
    """A data set that can be searched on.

    Attributes:
        name: that specs call it by.
        class_names: in the order of the labels; empty for regression. Added images only ever append to it.
        edges: float64 ascending, where one bin of values ends and the next begins; empty for classes.
        archives: how many the data set consists of.
        rows: of the images that are used, ascending by digest.
        splits: uint8 (n), a SplitNumber for each row.
        dropped: images of the pool that were left out because the test set has them too.
        report: JSON-safe; see `workers.datasets.report`.
        digest: SHA-256 of all images, labels, splits and names of classes: it names this version.
    """

    name: str
    task: Task
    class_names: tuple[str, ...]
    edges: np.ndarray
    archives: int
    rows: Rows
    splits: np.ndarray
    dropped: int
    report: dict[str, Any]
    digest: str

    def __len__(self) -> int:
        return len(self.rows)


def content_digest(task: Task, class_names: Sequence[str], rows: Rows, splits: np.ndarray) -> str:
    """Of rows that ascend by digest."""
    head = {"format": FORMAT_VERSION, "task": str(task), "classes": list(class_names), "images": len(rows)}
    digest = hashlib.sha256(json.dumps(head).encode())
    for column in (rows.digests.astype(">u8"), big_endian(rows.labels), splits.astype("u1")):
        digest.update(column.tobytes())
    return digest.hexdigest()


def save_index(index: Index, folder: Path) -> None:
    """Write both files, the index last: where it is, the report is."""
    header = {
        "name": index.name,
        "task": str(index.task),
        "class_names": list(index.class_names),
        "archives": index.archives,
        "dropped": index.dropped,
        "digest": index.digest,
    }
    columns = {field.name: getattr(index.rows, field.name) for field in fields(Rows)}
    buffer = io.BytesIO()
    np.savez(buffer, header=np.array(json.dumps(header)), edges=index.edges, splits=index.splits, **columns)
    write_atomically(folder / REPORT_FILE, json.dumps(index.report, indent=1).encode())
    write_atomically(folder / INDEX_FILE, buffer.getvalue())


def load_index(folder: Path) -> Index:
    """Read what `save_index` has written.

    Raises:
        DatasetUnavailableError: it is not there, or damaged.
    """
    try:
        report = json.loads((folder / REPORT_FILE).read_bytes())
        data = io.BytesIO((folder / INDEX_FILE).read_bytes())
        with np.load(data, allow_pickle=False) as arrays:
            header = json.loads(arrays["header"].item())
            rows = Rows(*(arrays[field.name] for field in fields(Rows)))
            edges, splits = arrays["edges"], arrays["splits"]
        task, class_names = Task(header["task"]), tuple(header["class_names"])
        if content_digest(task, class_names, rows, splits) != header["digest"]:
            raise ValueError("it is not what was written")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DatasetUnavailableError(f"there is no whole index of a data set: {error}; index it again") from error
    return Index(
        header["name"],
        task,
        class_names,
        edges,
        header["archives"],
        rows,
        splits,
        header["dropped"],
        report,
        header["digest"],
    )
