"""Networks over HTTP: what a spec may name, and bringing one's own."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Request, Response, UploadFile
from pydantic import ValidationError
from sqlalchemy import Engine
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from search_spaces.faults import Fault
from search_spaces.importing import ImportSettings
from search_spaces.refusals import plain_faults
from service.config import Settings
from service.db import insert_once, reading
from service.edge import EngineDep, NameInForm, NameInPath, SettingsDep, answer_headers, retry_after
from service.errors import InvalidRequestError
from service.networks.actions import add_network
from service.networks.queries import get_network, list_networks
from service.networks.schemas import NetworkBody, NetworkPage, network_body, network_page
from service.uploads import store_upload

router = APIRouter(prefix="/networks", tags=["networks"])

FileOfNetwork = Annotated[
    UploadFile, File(description="an .onnx file, a .zip of one and its data, or .safetensors weights of a family")
]
SettingsText = Annotated[str, Form(max_length=2**20, description="a JSON object; see ImportSettings")]


@router.get("")
def read_networks(engine: EngineDep) -> NetworkPage:
    """List the families of the catalog, and the networks that were imported."""
    with reading(engine) as session:
        return network_page(list_networks(session))


@router.post("", status_code=202)
async def create_network(
    request: Request,
    response: Response,
    engine: EngineDep,
    app_settings: SettingsDep,
    file: FileOfNetwork,
    name: NameInForm,
    settings: SettingsText = "{}",
) -> NetworkBody:
    """Hand over a network. A worker imports it, proves that it computes what the file does, and says what it found."""
    wanted = parse_settings(settings)
    shown = await run_in_threadpool(receive_network, engine, app_settings, file, name, wanted)
    response.headers.update(answer_headers(f"/v1/networks/{shown.name}", shown.state.is_final))
    return shown


@router.get("/{name}")
def read_network(response: Response, engine: EngineDep, name: NameInPath) -> NetworkBody:
    """Read an imported network: what can be searched of it, and what cannot and why."""
    with reading(engine) as session:
        shown = network_body(get_network(session, name))
    response.headers.update(retry_after(shown.state.is_final))
    return shown


def receive_network(
    engine: Engine, settings: Settings, file: UploadFile, name: str, wanted: ImportSettings
) -> NetworkBody:
    """Store the file, and have it imported."""
    upload = store_upload(settings.uploads_folder, file.file, file.filename, settings.upload_limit_bytes)

    def add(session: Session) -> NetworkBody:
        return network_body(add_network(session, name, upload, wanted))

    return insert_once(engine, add)


def parse_settings(text: str) -> ImportSettings:
    """Raises `InvalidRequestError` with a pointer to each fault."""
    try:
        data: Any = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError("the settings are not JSON", faults=[Fault("/settings", str(error)[:200])]) from None
    return check_settings(data)


def check_settings(data: Any) -> ImportSettings:
    """Raises `InvalidRequestError` with a pointer to each fault."""
    try:
        return ImportSettings.model_validate(data)
    except ValidationError as error:
        faults = plain_faults(error.errors(), within=("settings",))
        raise InvalidRequestError("the settings have faults", faults=faults) from None
