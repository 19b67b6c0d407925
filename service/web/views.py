"""What the page of one search shows, as plain text and numbers. Rows in, view out; knows no HTTP and no SQL.

The templates only place what is here; the words and figures are decided in this file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import compress
from operator import not_
from typing import Any, TypeVar

from markupsafe import Markup

from search_spaces.objectives import Provenance, TrialState
from search_spaces.spec import ObjectiveSpec, SearchSpec
from service.exports.queries import ExportRow
from service.models import Artifact, Finalist, Search, Trial, utc_now
from service.refinements.queries import RefinementRow, is_kept
from service.searches.predictions import RankCorrelation
from service.searches.schemas import sampler_body
from service.searches.specs import budgets_of, spec_of
from service.states import JobState, SearchState
from service.trials.fronts import Front, Member
from service.trials.queries import Progress
from service.units import show_seconds, show_with_unit, unit_of
from service.web import plot
from service.wording import (
    Figure,
    RefinedFigure,
    best_values,
    describe_activity,
    describe_budget,
    describe_design,
    describe_end,
    describe_extensions,
    describe_file,
    describe_obtained,
    describe_origin,
    describe_sampler,
    describe_training,
    describe_values,
    describe_weights,
    named_metrics,
    plot_axes,
    refined_figures,
    report_figures,
    show_value,
    shown_metrics,
    verdict,
)

TRIALS_PER_PAGE = 200
NEWEST_SHOWN = 5  # of exports and refinements, and all that are under way; older ones fold away
MOST_LISTED = 100  # of them, folded ones too
DRAWN_POINTS = 2000  # besides fronts and baseline; more would make each refresh heavy and show nothing new


@dataclass(frozen=True, slots=True)
class TrialFacts:
    """The columns of a trial that all of a search's trials are loaded with."""

    number: int
    baseline: bool
    state: str
    values: Mapping[str, float]

    @property
    def is_feasible(self) -> bool:
        return self.state == TrialState.SUCCEEDED


@dataclass(frozen=True, slots=True)
class SearchRows:
    """What was read for one search.

    Attributes:
        everyone: all trials, light, in order of their numbers.
        finalists: trials that are or were confirmed.
        page: the trials of the shown page, whose number is `page_number`.
    """

    search: Search
    progress: Progress
    everyone: Sequence[TrialFacts]
    front: Front
    ranked: RankCorrelation | None
    finalists: Sequence[Member]
    exports: Sequence[ExportRow]
    refinements: Sequence[RefinementRow]
    page: Sequence[Member]
    page_number: int


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One line of a table of trials."""

    number: int
    baseline: bool
    state: str
    cells: tuple[str, ...]
    design: str
    reason: str
    origin: str
    origin_url: str


@dataclass(frozen=True, slots=True)
class FileView:
    """A file to download, or a page to look at."""

    url: str
    filename: str
    size: str
    description: str
    is_page: bool


@dataclass(frozen=True, slots=True)
class ExportView:
    """An export; its files are the exported one, and those that come with it."""

    number: int
    weights: str
    state: str
    reason: str
    files: tuple[FileView, ...]
    figures: tuple[Figure, ...]


@dataclass(frozen=True, slots=True)
class RefinementView:
    id: str
    number: int
    is_open: bool
    settings: str
    state: str
    activity: str
    reason: str
    is_kept: bool
    figures: tuple[RefinedFigure, ...]


@dataclass(frozen=True, slots=True)
class SearchView:
    """Everything in the live part of a search's page."""

    id: str
    state: str
    is_final: bool
    activity: str
    elapsed: str
    extended: str
    begun_with: tuple[str, ...]
    progress: Progress
    obtained: str
    best: str
    of_base: str
    sampler: str
    budgets: tuple[str, ...]
    verbs: tuple[str, ...]
    can_extend: bool
    usual_extension: int
    waiting_for: str
    end: str
    evaluator_time: str
    warnings: tuple[str, ...]
    problem: Mapping[str, Any] | None
    headings: tuple[str, ...]
    plot: Markup
    hidden_points: int
    verdict: str
    confirmed: tuple[TrialRow, ...]
    front: tuple[TrialRow, ...]
    knee: int | None
    exports: tuple[ExportView, ...]
    older_exports: tuple[ExportView, ...]
    is_exporting: bool
    refinements: tuple[RefinementView, ...]
    older_refinements: tuple[RefinementView, ...]
    is_refining: bool
    trials: tuple[TrialRow, ...]
    has_predictions: bool
    has_stopped: bool
    number: int
    pages: int


def search_view(rows: SearchRows) -> SearchView:
    """Put the page together."""
    search, spec = rows.search, spec_of(rows.search)
    metrics = shown_metrics(spec.objectives)
    confirmed = sorted(rows.finalists, key=lambda member: (member[0].baseline, member[0].number))
    drawing, hidden = _plot(rows, spec)
    exports, older_exports = _fold(list(map(export_view, rows.exports)))
    refinements, older_refinements = _fold(list(map(refinement_view, rows.refinements)))
    return SearchView(
        id=search.id,
        state=search.state,
        is_final=search.state.is_final,
        activity=describe_activity(search.activity),
        elapsed=_elapsed(search),
        extended=describe_extensions(search.extensions),
        begun_with=tuple(dict.fromkeys(spec.warm_start)),
        progress=rows.progress,
        obtained=describe_obtained(asdict(rows.progress)),
        can_extend=search.state.is_final and search.base_key is not None,
        usual_extension=int(search.spec["budget"]["trials"]),
        best=best_values(spec.objectives, (trial.values for trial in rows.everyone if trial.is_feasible)),
        of_base=describe_values((search.base_report or {}).get("values", {}), spec.objectives),
        sampler=describe_sampler(sampler_body(search, rows.ranked).model_dump()),
        budgets=tuple(describe_budget(one.model_dump()) for one in budgets_of(search)),
        verbs=verbs_of(search.state),
        waiting_for=search.waiting_for,
        end=_end(search),
        evaluator_time=show_seconds(search.evaluator_s) if search.evaluator_s else "",
        warnings=tuple(str(warning) for warning in search.warnings),
        problem=search.problem,
        headings=tuple(unit_of(metric).heading for metric in metrics),
        plot=drawing,
        hidden_points=hidden,
        verdict=_verdict(confirmed, spec),
        confirmed=tuple(_confirmed_row(trial, finalist, metrics) for trial, finalist in confirmed if finalist),
        front=tuple(trial_row(trial, metrics) for trial, _ in rows.front.members),
        knee=rows.front.knee,
        exports=exports,
        older_exports=older_exports,
        is_exporting=any(row.export.state in (JobState.QUEUED, JobState.RUNNING) for row in rows.exports),
        refinements=refinements,
        older_refinements=older_refinements,
        is_refining=any(row.refinement.state in (JobState.QUEUED, JobState.RUNNING) for row in rows.refinements),
        trials=tuple(trial_row(trial, metrics) for trial, _ in rows.page),
        has_predictions=any(Provenance.PREDICTED in trial.sources.values() for trial, _ in rows.page),
        has_stopped=any(trial.state == TrialState.STOPPED for trial, _ in rows.page),
        number=rows.page_number,
        pages=max(1, -(-len(rows.everyone) // TRIALS_PER_PAGE)),
    )


Asked = TypeVar("Asked", ExportView, RefinementView)


def _fold(newest_first: Sequence[Asked]) -> tuple[tuple[Asked, ...], tuple[Asked, ...]]:
    """Those to show, and those to fold away."""
    shown = [place < NEWEST_SHOWN or not JobState(one.state).is_final for place, one in enumerate(newest_first)]
    return tuple(compress(newest_first, shown)), tuple(compress(newest_first, map(not_, shown)))


def verbs_of(state: SearchState) -> tuple[str, ...]:
    """What a person may ask of a search in this state."""
    if state.is_over:
        return ()
    if state is SearchState.PAUSED:
        return ("resume", "cancel")
    return ("cancel",) if state is SearchState.CONFIRMING else ("pause", "cancel")


def trial_row(trial: Trial, metrics: Sequence[str]) -> TrialRow:
    return TrialRow(
        number=trial.number,
        baseline=trial.baseline,
        state=trial.state,
        cells=tuple(show_value(metric, trial.values, trial.sources) for metric in metrics),
        design=describe_design(trial.design),
        reason=trial.reason,
        origin=describe_origin(trial.origin),
        origin_url=f"/searches/{trial.origin['search']}" if trial.origin else "",
    )


def export_view(row: ExportRow) -> ExportView:
    files = [row.artifact, *row.files] if row.artifact else []
    return ExportView(
        number=row.number,
        weights=describe_weights(row.export.report),
        state=row.export.state,
        reason=row.export.reason,
        files=tuple(map(_file, files)),
        figures=report_figures(row.export.report),
    )


def refinement_view(row: RefinementRow) -> RefinementView:
    refinement = row.refinement
    return RefinementView(
        id=refinement.id,
        is_open=not JobState(refinement.state).is_final,
        number=row.trial.number,
        settings=describe_training(refinement.settings),
        state=refinement.state,
        activity=describe_activity(refinement.activity),
        reason=refinement.reason,
        is_kept=is_kept(refinement) is not False,
        figures=refined_figures(row.trial.values, refinement.before, refinement.values),
    )


def _file(artifact: Artifact) -> FileView:
    return FileView(
        url=f"/v1/artifacts/{artifact.digest}",
        filename=artifact.filename,
        size=f"{artifact.size_bytes:,} bytes",
        description=describe_file(artifact.filename),
        is_page=artifact.media_type.startswith("text/html"),
    )


def _confirmed_row(trial: Trial, finalist: Finalist, metrics: Sequence[str]) -> TrialRow:
    cells = tuple(show_value(metric, finalist.values, finalist.sources) for metric in metrics)
    return replace(trial_row(trial, metrics), state=finalist.state, cells=cells, reason=finalist.reason)


def _verdict(confirmed: Sequence[Member], spec: SearchSpec) -> str:
    """Empty while there are none, or some are still being confirmed."""
    finalists = [finalist for _, finalist in confirmed if finalist]
    if not finalists or not all(JobState(finalist.state).is_final for finalist in finalists):
        return ""
    ended = [(trial, finalist) for trial, finalist in confirmed if finalist and finalist.state == JobState.SUCCEEDED]
    found = [finalist.values for trial, finalist in ended if not trial.baseline]
    uniform = [finalist.values for trial, finalist in ended if trial.baseline]
    return verdict(found, uniform, spec)


def _end(search: Search) -> str:
    told = {"reason": search.end_reason, "message": search.end_message} if search.end_reason else None
    return describe_end(told, search.problem)


def _elapsed(search: Search) -> str:
    """Of the last run: what passed before a search was extended is no time that it took."""
    began = search.extended_at or search.started_at
    if began is None:
        return ""
    return show_seconds(((search.finished_at or utc_now()) - began).total_seconds())


def picture(rows: SearchRows) -> str:
    """The plot as a file of its own, with its colours; an empty one before anything is known."""
    spec = spec_of(rows.search)
    axes = plot_axes(spec.objectives)
    if axes is None:
        return plot.EMPTY
    points, _ = _points(rows, *axes)
    return plot.render_plot(points, _axis(axes[0], spec), _axis(axes[1], spec), standalone=True) or plot.EMPTY


def _plot(rows: SearchRows, spec: SearchSpec) -> tuple[Markup, int]:
    """The drawing, and how many dominated designs were left out of it."""
    axes = plot_axes(spec.objectives)
    if axes is None:
        return Markup(), 0
    points, hidden = _points(rows, *axes)
    return Markup(plot.render_plot(points, _axis(axes[0], spec), _axis(axes[1], spec))), hidden


def _points(rows: SearchRows, across: ObjectiveSpec, up: ObjectiveSpec) -> tuple[list[plot.Point], int]:
    front = {trial.number for trial, _ in rows.front.members}
    known = [trial for trial in rows.everyone if across.metric in trial.values and up.metric in trial.values]
    special = [trial for trial in known if trial.baseline or trial.number in front]
    others = [trial for trial in known if not trial.baseline and trial.number not in front]
    points = [_point(trial, across, up, trial.number in front) for trial in [*others[-DRAWN_POINTS:], *special]]
    for trial, finalist in rows.finalists:
        if finalist and across.metric in finalist.values and up.metric in finalist.values:
            points.append(_confirmed_point(trial, finalist.values, across, up))
    return points, max(0, len(others) - DRAWN_POINTS)


def _point(trial: TrialFacts, across: ObjectiveSpec, up: ObjectiveSpec, on_front: bool) -> plot.Point:
    if trial.state == TrialState.STOPPED:
        mark = plot.Mark.STOPPED
    elif not trial.is_feasible:
        mark = plot.Mark.INFEASIBLE
    elif trial.baseline:
        mark = plot.Mark.UNIFORM
    else:
        mark = plot.Mark.FRONT if on_front else plot.Mark.TRIED
    label = f"{'uniform, ' if trial.baseline else ''}trial {trial.number}: {_values_text(trial.values)}"
    return plot.Point(trial.values[across.metric], trial.values[up.metric], mark, label, on_front)


def _confirmed_point(trial: Trial, values: Mapping[str, float], across: ObjectiveSpec, up: ObjectiveSpec) -> plot.Point:
    mark = plot.Mark.CONFIRMED_UNIFORM if trial.baseline else plot.Mark.CONFIRMED
    label = f"trial {trial.number} on confirm: {_values_text(values)}"
    low, high = values.get(f"{up.metric}_low"), values.get(f"{up.metric}_high")
    return plot.Point(values[across.metric], values[up.metric], mark, label, low=low, high=high)


def _values_text(values: Mapping[str, float]) -> str:
    named = named_metrics(values)
    return ", ".join(f"{unit_of(metric).title} {show_with_unit(metric, values[metric])}" for metric in named)


def _axis(objective: ObjectiveSpec, spec: SearchSpec) -> plot.Axis:
    limits = [limit for limit in spec.limits if limit.metric == objective.metric]
    bounds = tuple(bound for limit in limits for bound in (limit.min, limit.max) if bound is not None)
    return plot.Axis(objective.metric, objective.direction, bounds)
