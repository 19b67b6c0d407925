"""Data sets over HTTP: what a spec may name, and bringing one's own."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, File, Form, Response, UploadFile
from sqlalchemy import Engine
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from service.config import Settings
from service.datasets.actions import add_dataset
from service.datasets.queries import list_datasets, present_datasets, versions_of
from service.datasets.schemas import DatasetBody, DatasetPage, dataset_body, dataset_page
from service.db import insert_once, reading
from service.edge import EngineDep, NameInForm, NameInPath, SettingsDep, answer_headers, retry_after
from service.states import JobState
from service.uploads import store_upload

router = APIRouter(prefix="/datasets", tags=["datasets"])

FileOfDataset = Annotated[
    UploadFile, File(description="a .zip of class folders, of idx files or of a .csv with its images; or an .npz")
]
Extend = Annotated[bool, Form(description="add these images to the data set of that name, as its next version")]


@router.get("")
def read_datasets(engine: EngineDep) -> DatasetPage:
    """List the data sets that come with Espalier, and those that were added."""
    with reading(engine) as session:
        return dataset_page(present_datasets(session), list_datasets(session))


@router.post("", status_code=202)
async def create_dataset(
    response: Response,
    engine: EngineDep,
    app_settings: SettingsDep,
    file: FileOfDataset,
    name: NameInForm,
    extend: Extend = False,
) -> DatasetBody:
    """Hand over a data set. A worker looks at every image, divides them into splits, and reports what is odd."""
    shown = await run_in_threadpool(receive_dataset, engine, app_settings, file, name, extend)
    response.headers.update(answer_headers(f"/v1/datasets/{shown.name}", shown.state.is_final))
    return shown


@router.get("/{name}")
def read_dataset(response: Response, engine: EngineDep, name: NameInPath) -> DatasetBody:
    """Read a data set that was added: its versions, and what was found in them."""
    with reading(engine) as session:
        shown = dataset_body(versions_of(session, name))
    response.headers.update(retry_after(shown.versions[0].state.is_final))
    return shown


def receive_dataset(engine: Engine, settings: Settings, file: UploadFile, name: str, extend: bool) -> DatasetBody:
    """Store the archive, and have it indexed; version and state that are told are those of this archive."""
    upload = store_upload(settings.uploads_folder, file.file, file.filename, settings.upload_limit_bytes)

    def add(session: Session) -> DatasetBody:
        row = add_dataset(session, name, upload, extend=extend)
        body = dataset_body(versions_of(session, name))
        return body.model_copy(update={"version": row.version, "state": JobState(row.state)})

    return insert_once(engine, add)
