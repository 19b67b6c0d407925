"""Data sets as the API shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from pydantic import BaseModel

from search_spaces.datasets import DatasetInfo, Task, dataset_from_json
from service.models import OwnDataset
from service.searches.schemas import ActivityBody
from service.states import JobState


class DatasetItem(BaseModel):
    """A data set that a spec may name.

    `shape` is (channels, height, width) of an image; of most images where `is_resized`, which become what a network
    takes. `state` and `version` of a data set that a user has added are those of the newest version that can be used,
    which specs mean by the name; where none can, of the newest.
    """

    name: str
    description: str
    task: Task
    classes: int
    class_names: list[str]
    shape: tuple[int, int, int] | None
    is_resized: bool
    images: int
    test_images: int
    is_own: bool
    state: JobState
    version: int


class DatasetPage(BaseModel):
    items: list[DatasetItem]


class PreviewBody(BaseModel):
    """A PNG with a few training images of one class, or of one range of values."""

    name: str
    url: str


class VersionBody(BaseModel):
    """One version: what was handed over, and what was found in it."""

    version: int
    state: JobState
    filename: str
    digest: str | None
    activity: ActivityBody | None
    report: dict[str, Any]
    previews: list[PreviewBody]
    problem: dict[str, Any] | None
    created_at: datetime
    finished_at: datetime | None


class DatasetBody(DatasetItem):
    """A data set that a user has added, with all its versions, the newest first."""

    versions: list[VersionBody]


def dataset_page(present: Mapping[str, DatasetInfo], own: Sequence[OwnDataset]) -> DatasetPage:
    """List all that there are, by name once each.

    Args:
        present: those that nobody has to add.
        own: sorted by name, the newest version of each first.
    """
    versions = {name: list(rows) for name, rows in groupby(own, key=lambda row: row.name)}
    others = [info for name, info in present.items() if name not in versions]
    items = [_item(info, JobState.SUCCEEDED, 1, is_own=False) for info in others]
    return DatasetPage(items=[*items, *map(_own_item, versions.values())])


def dataset_body(versions: Sequence[OwnDataset]) -> DatasetBody:
    """The newest first; there is at least one."""
    return DatasetBody(**_own_item(versions).model_dump(), versions=[_version(row) for row in versions])


def _version(row: OwnDataset) -> VersionBody:
    return VersionBody(
        version=row.version,
        state=JobState(row.state),
        filename=row.filename,
        digest=row.digest,
        activity=row.activity and ActivityBody.model_validate(row.activity),
        report={key: value for key, value in row.report.items() if key != "previews"},
        previews=[
            PreviewBody(name=one["name"], url=f"/v1/artifacts/{one['digest']}")
            for one in row.report.get("previews", [])
        ],
        problem=row.problem,
        created_at=row.created_at,
        finished_at=row.finished_at,
    )


def _own_item(versions: Sequence[OwnDataset]) -> DatasetItem:
    """What specs mean by the name: the newest version that can be used; where none can, the newest."""
    newest = next((row for row in versions if row.state == JobState.SUCCEEDED), versions[0])
    state = JobState(newest.state)
    if newest.info is not None:
        return _item(dataset_from_json(newest.info), state, newest.version, is_own=True)
    return DatasetItem(
        name=newest.name,
        description=f"from {newest.filename}",
        task=Task.CLASSIFICATION,
        classes=0,
        class_names=[],
        shape=None,
        is_resized=True,
        images=0,
        test_images=0,
        is_own=True,
        state=state,
        version=newest.version,
    )


def _item(info: DatasetInfo, state: JobState, version: int, *, is_own: bool) -> DatasetItem:
    return DatasetItem(
        name=info.name,
        description=info.description,
        task=info.task,
        classes=info.classes,
        class_names=list(info.class_names),
        shape=info.shape,
        is_resized=info.is_resized,
        images=info.images,
        test_images=info.test_images,
        is_own=is_own,
        state=state,
        version=version,
    )
