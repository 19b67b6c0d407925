"""The pages of networks and data sets: what there is, what was found in it, and bringing one's own.

They show the same bodies as the API. Forms work without JavaScript; a page that waits for a worker loads itself again.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import HTMLResponse, Response

from search_spaces.network import Interpolation
from search_spaces.spec import Family
from service.brought import class_rows, dataset_facts, fixed_parts, network_facts, notes_of, usable_version
from service.datasets.queries import list_datasets, present_datasets, versions_of
from service.datasets.routes import receive_dataset
from service.datasets.schemas import dataset_body, dataset_page
from service.edge import EngineDep, NameInPath, SettingsDep, check_name
from service.errors import ProblemError
from service.networks.queries import get_network, list_networks
from service.networks.routes import check_settings, receive_network
from service.networks.schemas import NetworkKind, network_body, network_page
from service.web.page import Reading, redirect, render

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

_Text = Annotated[str, Form()]


@router.get("/networks")
def networks_page(request: Request, session: Reading) -> Response:
    """All networks, and the form to bring one."""
    return _networks(request, network_page(list_networks(session)).model_dump(mode="json"))


@router.post("/networks/new")
def bring_network(
    request: Request,
    engine: EngineDep,
    app_settings: SettingsDep,
    session: Reading,
    file: Annotated[UploadFile, File()],
    name: _Text = "",
    input: _Text = "",
    mean: _Text = "",
    std: _Text = "",
    resize: _Text = "",
    interpolation: _Text = "",
    class_names: _Text = "",
    family: _Text = "",
    width: _Text = "",
    stem_stride: _Text = "",
) -> Response:
    """Hand over a network; or show the form again, and what is wrong."""
    filled = {
        "name": name,
        "input": input,
        "mean": mean,
        "std": std,
        "resize": resize,
        "interpolation": interpolation,
        "class_names": class_names,
        "family": family,
        "width": width,
        "stem_stride": stem_stride,
    }
    try:
        wanted = check_settings(_settings_of(filled))
        shown = receive_network(engine, app_settings, file, check_name(name), wanted)
    except ProblemError as error:
        page = network_page(list_networks(session)).model_dump(mode="json")
        return _networks(request, page, error, filled)
    return redirect(f"/networks/{shown.name}")


@router.get("/networks/{name}")
def network_page_of(request: Request, session: Reading, name: NameInPath) -> Response:
    """One imported network."""
    network = network_body(get_network(session, name)).model_dump(mode="json")
    report = network["report"]
    return render(
        request,
        "network.html",
        network=network,
        facts=network_facts(report),
        fixed=fixed_parts(report),
        notes=notes_of(report),
        groups=report.get("groups", ()),
    )


@router.get("/datasets")
def datasets_page(request: Request, session: Reading) -> Response:
    """All data sets, and the form to bring one."""
    return _datasets(request, dataset_page(present_datasets(session), list_datasets(session)).model_dump(mode="json"))


@router.post("/datasets/new")
def bring_dataset(
    request: Request,
    engine: EngineDep,
    app_settings: SettingsDep,
    session: Reading,
    file: Annotated[UploadFile, File()],
    name: _Text = "",
    extend: Annotated[bool, Form()] = False,
) -> Response:
    """Hand over a data set; or show the form again, and what is wrong."""
    try:
        shown = receive_dataset(engine, app_settings, file, check_name(name), extend)
    except ProblemError as error:
        page = dataset_page(present_datasets(session), list_datasets(session)).model_dump(mode="json")
        return _datasets(request, page, error, {"name": name, "extend": extend})
    return redirect(f"/datasets/{shown.name}")


@router.get("/datasets/{name}")
def dataset_page_of(request: Request, session: Reading, name: NameInPath) -> Response:
    """One data set that was added, as specs mean it, with a few images of each class; and how its newest version is."""
    dataset = dataset_body(versions_of(session, name)).model_dump(mode="json")
    newest, usable = dataset["versions"][0], usable_version(dataset)
    report = usable["report"]
    return render(
        request,
        "dataset.html",
        dataset=dataset,
        newest=newest,
        usable=usable,
        facts=dataset_facts(dataset, report),
        splits=list(report.get("splits", ())),
        classes=class_rows(report),
        notes=notes_of(report),
    )


def _networks(
    request: Request, page: dict[str, Any], error: ProblemError | None = None, filled: dict[str, str] | None = None
) -> Response:
    return render(
        request,
        "networks.html",
        status=200 if error is None else int(error.status),
        items=sorted(page["items"], key=lambda item: item["kind"] != NetworkKind.IMPORTED),
        families=list(Family),
        interpolations=list(Interpolation),
        problem=error and error.document(),
        filled=filled or {},
    )


def _datasets(
    request: Request, page: dict[str, Any], error: ProblemError | None = None, filled: dict[str, Any] | None = None
) -> Response:
    return render(
        request,
        "datasets.html",
        status=200 if error is None else int(error.status),
        items=sorted(page["items"], key=lambda item: not item["is_own"]),
        problem=error and error.document(),
        filled=filled or {},
    )


def _settings_of(filled: dict[str, str]) -> dict[str, Any]:
    """Settings of an import from a form's texts; what is left empty is left out. Faults are found by who reads them."""
    settings: dict[str, Any] = {key: text.strip() for key, text in filled.items() if text.strip() and key != "name"}
    for key in ("input", "mean", "std"):
        if key in settings:
            settings[key] = [part for part in re.split(r"[,\s]+", settings[key]) if part]
    if "class_names" in settings:
        lines = filled["class_names"].splitlines()
        settings["class_names"] = [line.strip() for line in lines if line.strip()]
    return settings
