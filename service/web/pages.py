"""The web pages' routes. Thin: rows are read, a view is built, a template is filled.

Forms call the same actions as the API, and are answered with a redirect, so that everything works without JavaScript.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import parse_qs

import yaml
from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.responses import HTMLResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import ValidationError
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from search_spaces.check import check_spec
from search_spaces.datasets import Task, dataset_from_json
from search_spaces.faults import SpecError
from search_spaces.parse import parse_document, parse_spec
from search_spaces.refusals import plain_faults
from search_spaces.spec import SearchSpec
from service.datasets.queries import find_dataset
from service.db import transaction
from service.edge import EngineDep, NameInQuery, PageToken, SearchId, SearchInQuery, check_same_site
from service.errors import InvalidPageTokenError, InvalidRequestError, NotFoundError, StateConflictError
from service.examples import example_path, own_example
from service.exports.actions import request_export
from service.exports.queries import list_exports
from service.known import known_for
from service.models import Search
from service.paging import decode_token, encode_token
from service.refinements.actions import cancel_refinement, request_refinement
from service.refinements.queries import list_refinements
from service.refinements.schemas import RefinementRequest
from service.searches import actions
from service.searches.extensions import extend
from service.searches.forks import fork_spec
from service.searches.predictions import rank_correlation
from service.searches.queries import get_search, list_searches, lock_search
from service.searches.schemas import ExtensionRequest
from service.states import EventKind
from service.trials.fronts import find_front, list_finalists
from service.trials.queries import list_trials, progress_of
from service.trials.wanted import wanted_trial, wanted_trials
from service.web import queries, views
from service.web.brought_pages import router as brought
from service.web.comparison_pages import router as comparisons
from service.web.device_pages import router as devices
from service.web.editor import Editor, build_editor
from service.web.page import HEADERS, HERE, PICTURE_POLICY, Reading, redirect, render
from service.wording import plain_words

SEARCHES_PER_PAGE = 50
LAST_PAGE = 10_000
VERBS = {"cancel": actions.cancel, "pause": actions.pause, "resume": actions.resume}

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


def add_pages(app: FastAPI) -> None:
    """Put the pages and their static files into the application."""
    app.include_router(router)
    app.include_router(brought)
    app.include_router(comparisons)
    app.include_router(devices)
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")


def problem_page(request: Request, problem: dict[str, Any]) -> Response:
    """What went wrong, for a person who asked for a page."""
    return render(request, "problem.html", status=problem["status"], problem=problem)


async def form_of(request: Request) -> dict[str, str]:
    """A posted form's fields. Raises `CrossSiteError` when another site sent it."""
    check_same_site(request.headers)
    fields = parse_qs((await request.body()).decode("utf-8", "replace"), keep_blank_values=True)
    return {name: values[0] for name, values in fields.items()}


PageNumber = Annotated[int, Query(ge=1, le=LAST_PAGE)]
FormFields = Annotated[dict[str, str], Depends(form_of)]


@router.get("/")
def list_page(request: Request, session: Reading, page_token: PageToken = None) -> Response:
    """All searches, newest first."""
    found = list_searches(session, limit=SEARCHES_PER_PAGE + 1, before=_position(page_token))
    shown = found[:SEARCHES_PER_PAGE]
    token = _token_after(shown[-1]) if len(found) > len(shown) else None
    progress = progress_of(session, shown)
    return render(request, "searches.html", searches=shown, progress=progress, next_page_token=token)


@router.get("/searches/new")
def new_page(
    request: Request,
    session: Reading,
    network: NameInQuery = None,
    dataset: NameInQuery = None,
    fork: SearchInQuery = None,
    like: SearchInQuery = None,
) -> Response:
    """The form, with an example that runs as it is, one for a network or images of one's own, or another's spec."""
    if like is not None:
        return _editor_page(request, build_editor(_same_question(get_search(session, like))))
    if fork is not None:
        parent = get_search(session, fork)
        spec = fork_spec(parent, {}).model_dump(mode="json", exclude_defaults=True)
        return _editor_page(request, build_editor(yaml.safe_dump(spec, sort_keys=False)), parent)
    if network is None and dataset is None:
        return _editor_page(request, build_editor(example_path().read_text(encoding="utf-8")))
    row = None if dataset is None else find_dataset(session, dataset)
    task = Task.CLASSIFICATION if row is None or row.info is None else dataset_from_json(row.info).task
    return _editor_page(request, build_editor(own_example(network, dataset, task)))


def _same_question(search: Search) -> str:
    """The search's spec, to be answered by another sampler: both are said, so that they can be changed."""
    spec = SearchSpec.model_validate(search.spec)
    sampler = {"name": spec.sampler.name, "seed": spec.sampler.seed}
    document = spec.model_dump(mode="json", exclude_defaults=True, exclude={"warm_start", "sampler"})
    options = spec.sampler.model_dump(mode="json", exclude_defaults=True)
    return yaml.safe_dump(document | {"sampler": sampler | options}, sort_keys=False)


@router.post("/searches/new")
def submit(
    request: Request, session: Reading, engine: EngineDep, form: FormFields, fork: SearchInQuery = None
) -> Response:
    """Start a search; or show the form again, with the text as it was and what is wrong with it."""
    text = form.get("spec", "").replace("\r\n", "\n")
    try:
        search_id = _create(engine, text)
    except SpecError as error:
        parent = None if fork is None else get_search(session, fork)
        return _editor_page(request, build_editor(text, "This spec has faults", error.faults), parent, status=422)
    return redirect(f"/searches/{search_id}")


@router.get("/searches/{search_id}")
def search_page(request: Request, session: Reading, search_id: SearchId, page: PageNumber = 1) -> Response:
    """One search; its live part is replaced while it runs."""
    search = get_search(session, search_id)
    return render(
        request,
        "search.html",
        search=search,
        page=_view(session, search, page),
        spec_text=yaml.safe_dump(search.spec, sort_keys=False),
        event_kinds=[str(kind) for kind in EventKind],
    )


@router.get("/searches/{search_id}/fragment")
def search_fragment(request: Request, session: Reading, search_id: SearchId, page: PageNumber = 1) -> Response:
    """The live part of a search's page."""
    return render(request, "fragment.html", page=_view(session, get_search(session, search_id), page))


@router.get("/searches/{search_id}/front.svg")
def front_picture(session: Reading, search_id: SearchId) -> Response:
    """The plot as a file, to put into a document."""
    drawing = views.picture(_read(session, get_search(session, search_id), page_number=1))
    return Response(drawing, media_type="image/svg+xml", headers=HEADERS | {"Content-Security-Policy": PICTURE_POLICY})


@router.post("/searches/{search_id}/exports")
def export(engine: EngineDep, form: FormFields, search_id: SearchId) -> Response:
    """Ask for the file of one trial; without a number, of the knee as it is now."""
    number = form.get("trial", "")
    with transaction(engine) as session:
        trial = wanted_trial(session, get_search(session, search_id), _number(number) if number else None)
        request_export(session, trial)
    return redirect(f"/searches/{search_id}")


@router.post("/searches/{search_id}/refinements")
def refine(engine: EngineDep, form: FormFields, search_id: SearchId) -> Response:
    """Train one trial's design on, or without a number those of the front."""
    number = form.get("trial", "")
    settings = {name: form[name] for name in ("epochs", "learning_rate") if form.get(name)}
    try:
        wanted = RefinementRequest.model_validate({**settings, "trials": [_number(number)] if number else None})
    except ValidationError as error:
        fault = error.errors()[0]
        raise InvalidRequestError(f"{plain_words(str(fault['loc'][0]))}: {fault['msg']}") from None
    with transaction(engine) as session:
        search = get_search(session, search_id)
        for trial in wanted_trials(session, search, wanted.trials):
            request_refinement(session, search, trial, wanted.settings())
    return redirect(f"/searches/{search_id}")


@router.post("/searches/{search_id}/refinements/{refinement_id}/cancel")
def stop_refining(engine: EngineDep, form: FormFields, search_id: SearchId, refinement_id: SearchId) -> Response:
    with transaction(engine) as session:
        cancel_refinement(session, refinement_id)
    return redirect(f"/searches/{search_id}")


@router.post("/searches/{search_id}/extend")
def extend_search(engine: EngineDep, form: FormFields, search_id: SearchId) -> Response:
    """Go on with a search that is over."""
    try:
        wanted = ExtensionRequest.model_validate({"trials": form.get("trials", "")})
    except ValidationError as error:
        raise InvalidRequestError("the search was not extended", faults=plain_faults(error.errors())) from None
    with suppress(StateConflictError), transaction(engine) as session:  # somebody else was faster
        extend(session, lock_search(session, search_id), wanted.extension(), None, "")
    return redirect(f"/searches/{search_id}")


@router.post("/searches/{search_id}/{verb}")
def change(engine: EngineDep, form: FormFields, search_id: SearchId, verb: str) -> Response:
    """Cancel, pause or resume."""
    if verb not in VERBS:
        raise NotFoundError(f"there is no {verb}")
    # What the page offered may have become impossible meanwhile; the page then shows the state that there is.
    with suppress(StateConflictError), transaction(engine) as session:
        VERBS[verb](session, lock_search(session, search_id))
    return redirect(f"/searches/{search_id}")


def _token_after(search: Search) -> str:
    return encode_token({"created_at": search.created_at.isoformat(), "id": search.id}, {})


def _position(token: str | None) -> tuple[datetime, str] | None:
    """Raises `InvalidPageTokenError` for a token that is none of ours."""
    if token is None:
        return None
    position = decode_token(token, {})
    try:
        return datetime.fromisoformat(position["created_at"]), str(position["id"])
    except (KeyError, TypeError, ValueError):
        raise InvalidPageTokenError("that page is not known") from None


def _view(session: Session, search: Search, page_number: int) -> views.SearchView:
    return views.search_view(_read(session, search, page_number))


def _read(session: Session, search: Search, page_number: int) -> views.SearchRows:
    before = (page_number - 1) * views.TRIALS_PER_PAGE - 1  # trials are numbered from 0 without gaps
    return views.SearchRows(
        search=search,
        progress=progress_of(session, [search])[search.id],
        everyone=queries.all_trials(session, search.id),
        front=find_front(session, search),
        ranked=rank_correlation(session, search),
        finalists=list_finalists(session, search.id),
        exports=list_exports(session, search.id, views.MOST_LISTED),
        refinements=list_refinements(session, search.id, views.MOST_LISTED),
        page=list_trials(session, search.id, limit=views.TRIALS_PER_PAGE, after=before),
        page_number=page_number,
    )


def _create(engine: Engine, text: str) -> str:
    body = text.encode()
    spec = parse_spec(parse_document(body, yaml=True))
    with transaction(engine) as session:
        checked = check_spec(spec, known_for(session, spec))
        return actions.create_search(session, checked, None, hashlib.sha256(body).hexdigest()).id


def _number(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise NotFoundError("that is no trial")
    return int(text)


def _editor_page(request: Request, editor: Editor, parent: Search | None = None, status: int = 200) -> Response:
    return render(request, "new.html", status=status, editor=editor, parent=parent)
