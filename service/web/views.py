"""What the page of one search shows, as plain text and numbers. Rows in, view out; knows no HTTP and no SQL.

The templates only place what is here; the words and figures are decided in this file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from search_spaces import pareto
from search_spaces.objectives import Direction, Metric, TrialState
from search_spaces.spec import ObjectiveSpec, SearchSpec
from service.comparison import Contender, compare
from service.models import Artifact, Export, Search, Trial, utc_now
from service.states import JobState, SearchState
from service.units import UNITS, show_seconds, show_with_unit
from service.web import plot
from service.wording import (
    Figure,
    best_values,
    describe_activity,
    describe_design,
    plot_axes,
    report_figures,
    show_value,
    shown_metrics,
    verdict,
)

TRIALS_PER_PAGE = 200
DRAWN_POINTS = 2000  # besides fronts and baseline; more would make each refresh heavy and show nothing new


@dataclass(frozen=True, slots=True)
class TrialFacts:
    """The columns of a trial that all of a search's trials are loaded with."""

    id: int
    number: int
    baseline: bool
    state: str
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One line of a table of trials."""

    number: int
    baseline: bool
    state: str
    cells: tuple[str, ...]
    design: str
    reason: str


@dataclass(frozen=True, slots=True)
class ExportRow:
    number: int
    state: str
    reason: str
    url: str
    filename: str
    size: str
    figures: tuple[Figure, ...]


@dataclass(frozen=True, slots=True)
class TrialPage:
    number: int
    pages: int
    trials: tuple[TrialFacts, ...]


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A finalist with the trial that it comes from."""

    trial: TrialFacts
    state: str
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class SearchView:
    """Everything in the live part of a search's page."""

    id: str
    state: str
    is_final: bool
    activity: str
    elapsed: str
    progress: Mapping[str, int]
    best: str
    verbs: tuple[str, ...]
    waiting_for: str
    warnings: tuple[str, ...]
    problem: Mapping[str, Any] | None
    headings: tuple[str, ...]
    plot: Markup
    hidden_points: int
    verdict: str
    confirmed: tuple[TrialRow, ...]
    front: tuple[TrialRow, ...]
    knee: int | None
    exports: tuple[ExportRow, ...]
    is_exporting: bool
    trials: tuple[TrialRow, ...]
    number: int
    pages: int


def search_view(
    search: Search,
    progress: Mapping[str, int],
    everyone: Sequence[TrialFacts],
    details: Mapping[int, Trial],
    confirmed: Sequence[Confirmed],
    exports: Sequence[ExportRow],
    page: TrialPage,
) -> SearchView:
    """Put the page together. `details` has the trials that are shown in full, by id."""
    spec = SearchSpec.model_validate(search.spec)
    metrics = shown_metrics(spec.objectives)
    front = find_front(everyone, spec)
    confirmed_ones = [one for one in confirmed if one.state == JobState.SUCCEEDED]
    drawing, hidden = _plot(spec, everyone, front, confirmed_ones)
    knee = pareto.knee([trial.values for trial in front], spec.objectives) if front else None
    return SearchView(
        id=search.id,
        state=search.state,
        is_final=search.state.is_final,
        activity="" if search.state.is_final else describe_activity(search.activity),
        elapsed=_elapsed(search),
        progress=progress,
        best=best_values(spec.objectives, (trial.values for trial in everyone if is_feasible(trial))),
        verbs=verbs_of(search.state),
        waiting_for=search.waiting_for,
        warnings=tuple(str(warning) for warning in search.warnings),
        problem=search.problem,
        headings=tuple(UNITS[metric].heading for metric in metrics),
        plot=drawing,
        hidden_points=hidden,
        verdict=_verdict(confirmed_ones, spec),
        confirmed=tuple(_confirmed_row(one, details, metrics) for one in confirmed),
        front=tuple(trial_row(details[trial.id], metrics) for trial in front),
        knee=None if knee is None else front[knee].number,
        exports=tuple(exports),
        is_exporting=any(export.state in (JobState.QUEUED, JobState.RUNNING) for export in exports),
        trials=tuple(trial_row(details[trial.id], metrics) for trial in page.trials),
        number=page.number,
        pages=page.pages,
    )


def page_of(everyone: Sequence[TrialFacts], number: int) -> TrialPage:
    """The asked page, or the nearest that there is. Pages count from 1."""
    pages = max(1, -(-len(everyone) // TRIALS_PER_PAGE))
    number = min(max(number, 1), pages)
    start = (number - 1) * TRIALS_PER_PAGE
    return TrialPage(number, pages, tuple(everyone[start : start + TRIALS_PER_PAGE]))


def find_front(everyone: Sequence[TrialFacts], spec: SearchSpec) -> list[TrialFacts]:
    """The feasible trials that no other one beats, uniform designs included."""
    feasible = [trial for trial in everyone if is_feasible(trial)]
    if not feasible:
        return []
    return [feasible[index] for index in pareto.front_indices([trial.values for trial in feasible], spec.objectives)]


def is_feasible(trial: TrialFacts) -> bool:
    return trial.state == TrialState.SUCCEEDED


def verbs_of(state: SearchState) -> tuple[str, ...]:
    """What a person may ask of a search in this state."""
    if state.is_final or state is SearchState.CANCELLING:
        return ()
    if state is SearchState.PAUSED:
        return ("resume", "cancel")
    return ("cancel",) if state is SearchState.CONFIRMING else ("pause", "cancel")


def trial_row(trial: Trial, metrics: Sequence[Metric], values: Mapping[str, float] | None = None) -> TrialRow:
    shown = trial.values if values is None else values
    return TrialRow(
        number=trial.number,
        baseline=trial.baseline,
        state=trial.state,
        cells=tuple(show_value(metric, shown) for metric in metrics),
        design=describe_design(trial.design),
        reason=trial.reason,
    )


def export_row(export: Export, trial_number: int, artifact: Artifact | None) -> ExportRow:
    return ExportRow(
        number=trial_number,
        state=export.state,
        reason=export.reason,
        url=f"/v1/artifacts/{artifact.digest}" if artifact else "",
        filename=artifact.filename if artifact else "",
        size=f"{artifact.size_bytes:,} bytes" if artifact else "",
        figures=report_figures(export.report),
    )


def _confirmed_row(one: Confirmed, details: Mapping[int, Trial], metrics: Sequence[Metric]) -> TrialRow:
    row = trial_row(details[one.trial.id], metrics, one.values)
    return replace(row, state=one.state)


def _verdict(confirmed: Sequence[Confirmed], spec: SearchSpec) -> str:
    if not confirmed:
        return ""
    contenders = [Contender(one.trial.number, one.trial.baseline, one.values) for one in confirmed]
    return verdict(compare(contenders, spec.objectives))


def _elapsed(search: Search) -> str:
    if search.started_at is None:
        return ""
    return show_seconds(((search.finished_at or utc_now()) - search.started_at).total_seconds())


def _plot(
    spec: SearchSpec, everyone: Sequence[TrialFacts], front: Sequence[TrialFacts], confirmed: Sequence[Confirmed]
) -> tuple[Markup, int]:
    """The drawing, and how many dominated designs were left out of it."""
    axes = plot_axes(spec.objectives)
    if axes is None:
        return Markup(), 0
    across, up = axes
    known = [trial for trial in everyone if across.metric in trial.values and up.metric in trial.values]
    members = {trial.number for trial in front}
    special = [trial for trial in known if trial.baseline or trial.number in members]
    others = [trial for trial in known if not trial.baseline and trial.number not in members]
    points = [_point(trial, across, up, members) for trial in [*others[-DRAWN_POINTS:], *special]]
    points += [_confirmed_point(one, across, up) for one in confirmed if across.metric in one.values]
    drawing = plot.render_plot(points, _axis(across, spec), _axis(up, spec))
    return Markup(drawing), max(0, len(others) - DRAWN_POINTS)  # the plot escapes its own text


def _point(trial: TrialFacts, across: ObjectiveSpec, up: ObjectiveSpec, members: set[int]) -> plot.Point:
    if not is_feasible(trial):
        mark = plot.Mark.INFEASIBLE
    elif trial.baseline:
        mark = plot.Mark.UNIFORM
    else:
        mark = plot.Mark.FRONT if trial.number in members else plot.Mark.TRIED
    label = f"{'uniform, ' if trial.baseline else ''}trial {trial.number}: {_values_text(trial.values)}"
    values = trial.values
    return plot.Point(values[across.metric], values[up.metric], mark, label, on_front=trial.number in members)


def _confirmed_point(one: Confirmed, across: ObjectiveSpec, up: ObjectiveSpec) -> plot.Point:
    mark = plot.Mark.CONFIRMED_UNIFORM if one.trial.baseline else plot.Mark.CONFIRMED
    label = f"trial {one.trial.number} on confirm: {_values_text(one.values)}"
    values = one.values
    low, high = (
        (values.get("accuracy_low"), values.get("accuracy_high")) if up.metric is Metric.ACCURACY else (None, None)
    )
    return plot.Point(values[across.metric], values[up.metric], mark, label, low=low, high=high)


def _values_text(values: Mapping[str, float]) -> str:
    known = [metric for metric in Metric if metric in values]
    return ", ".join(f"{UNITS[metric].title} {show_with_unit(metric, values[metric])}" for metric in known)


def _axis(objective: ObjectiveSpec, spec: SearchSpec) -> plot.Axis:
    limits = [limit for limit in spec.limits if limit.metric is objective.metric]
    bounds = tuple(bound for limit in limits for bound in (limit.min, limit.max) if bound is not None)
    return plot.Axis(objective.metric, Direction(objective.direction), bounds)
