"""The page that shows searches of one question side by side, and its picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from service.comparisons.queries import compare
from service.comparisons.schemas import ComparisonBody, StandingBody, StepBody, comparison_body
from service.edge import SearchId
from service.errors import NotFoundError
from service.searches.queries import get_search
from service.units import show_seconds, unit_of
from service.web.curves import Curve, Panel, Point, render_panels
from service.web.page import HEADERS, PICTURE_POLICY, Reading, render
from service.wording import counted

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


class By(StrEnum):
    """What the hypervolume is drawn against."""

    TRIALS = "trials"
    TIME = "time"


TITLES = {By.TRIALS: "By trials", By.TIME: "By time"}
AXES = {By.TRIALS: "trials behind the uniform baseline", By.TIME: "seconds of evaluators, the baseline's too"}
SPREAD_EVERY = 5
"""Points of a mean curve between which its spread is not drawn."""


@dataclass(frozen=True, slots=True)
class StandingRow:
    """One search's line."""

    id: str
    name: str
    state: str
    sampler: str
    cells: tuple[str, ...]
    note: str


@router.get("/searches/{search_id}/comparison")
def comparison_page(request: Request, session: Reading, search_id: SearchId) -> Response:
    """A search beside others that ask the same."""
    search = get_search(session, search_id)
    found = comparison_body(compare(session, search))
    metrics = " against ".join(unit_of(one["metric"]).title for one in search.spec["objectives"])
    return render(
        request,
        "comparison.html",
        search=search,
        question=f"{metrics} on {search.spec['dataset']['name']}",
        common=counted(found.common_trials, "trial"),
        rows=[standing_row(one) for one in found.items],
        is_drawn=any(one.curve for one in found.items),
    )


@router.get("/searches/{search_id}/comparison.svg")
def comparison_picture(session: Reading, search_id: SearchId, by: By = By.TRIALS) -> Response:
    """The page's curves as a file, to put into a document."""
    found = comparison_body(compare(session, get_search(session, search_id)))
    if not any(one.curve for one in found.items):
        raise NotFoundError("nothing has been found yet that could be drawn")
    drawing = picture(found, by)
    return Response(drawing, media_type="image/svg+xml", headers=HEADERS | {"Content-Security-Policy": PICTURE_POLICY})


def standing_row(one: StandingBody) -> StandingRow:
    cells = (
        "" if one.seed is None else str(one.seed),
        str(one.trials),
        show_seconds(one.evaluator_s),
        f"{100 * one.share_at_common:.1f} %",
        f"{100 * one.share:.1f} %",
        str(one.on_joint_front),
    )
    note = f"began with {counted(one.inherited, 'trial')} of others" if one.inherited else ""
    return StandingRow(one.search, one.name, one.state, one.sampler, cells, note)


def picture(comparison: ComparisonBody, by: By) -> str:
    """Hypervolume against trials or evaluators' time, a curve for each sampler; there must be one.

    What began with trials of others is no mean with what did not: it is ahead by what it was given.
    """
    alike: dict[str, list[StandingBody]] = defaultdict(list)
    for one in comparison.items:
        if one.curve:
            alike[f"{one.sampler}, not from scratch" if one.inherited else one.sampler].append(one)
    curves = [Curve(title(name, ones), mean_points([one.curve for one in ones], by)) for name, ones in alike.items()]
    return render_panels([Panel(TITLES[by], AXES[by], "hypervolume, % of all that was found", curves)])


def title(sampler: str, ones: Sequence[StandingBody]) -> str:
    return sampler if len(ones) == 1 else f"{sampler}, {len(ones)} searches"


def mean_points(curves: Sequence[Sequence[StepBody]], by: By) -> list[Point]:
    """The mean share with its spread, after each number of trials at which all curves have a step."""
    by_trials = [{step.trials: step for step in curve} for curve in curves]
    common = sorted(set.intersection(*(set(steps) for steps in by_trials)))
    points = []
    for place, trials in enumerate(common):
        steps = [curve[trials] for curve in by_trials]
        shares = [100 * step.share for step in steps]
        mean = sum(shares) / len(shares)
        low, high = (min(shares), max(shares)) if place % SPREAD_EVERY == 0 else (mean, mean)
        at = trials if by is By.TRIALS else sum(step.evaluator_s for step in steps) / len(steps)
        points.append(Point(float(at), mean, low, high))
    return points
