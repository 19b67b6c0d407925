"""What the command line shows: tables, a text plot, problems. Knows rich and the API's JSON, sends nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from search_spaces.objectives import TrialState
from search_spaces.spec import ObjectiveSpec, SearchSpec
from service.client import Json, RefusedError
from service.states import JobState
from service.units import ABSENT, show_seconds, show_with_unit, unit_of
from service.wording import (
    counted,
    describe_budget,
    describe_design,
    describe_end,
    describe_extensions,
    describe_obtained,
    describe_origin,
    describe_sampler,
    describe_training,
    describe_values,
    describe_weights,
    plot_axes,
    refined_figures,
    report_figures,
    show_value,
    shown_metrics,
    verdict,
)

STATE_STYLES = {
    "succeeded": "green",
    "failed": "red",
    "cancelled": "yellow",
    "infeasible": "yellow",
    "stopped": "yellow",
    "running": "cyan",
    "preparing": "cyan",
    "confirming": "cyan",
}
_COUNTED = ("running", "infeasible", "stopped", "failed")
PLOT_WIDTH, PLOT_HEIGHT = 64, 16
_LEAST_OF_DESIGN = 18


def state_text(state: str) -> Text:
    return Text(state, style=STATE_STYLES.get(state, ""))


def search_table(searches: Iterable[Json]) -> Table:
    table = Table("id", "name", "state", "trials", "created", box=None, header_style="bold")
    for search in searches:
        done, total = search["progress"]["done"], search["progress"]["total"]
        created = search["created_at"][:16].replace("T", " ")
        table.add_row(search["id"][:8], Text(search["name"]), state_text(search["state"]), f"{done}/{total}", created)
    return table


def comparison_table(comparison: Json) -> Table:
    """Searches of one question, those that have found most first."""
    table = Table("sampler", box=None, header_style="bold", caption=_COMPARED, caption_justify="left")
    table.add_column("search", no_wrap=True)
    common = f"at {counted(comparison['common_trials'], 'trial')}"
    is_anything_inherited = any(one["inherited"] for one in comparison["items"])
    for heading in ("seed", "trials", *(["began with"] * is_anything_inherited), "evaluators", common, "end", "front"):
        table.add_column(heading, justify="right")
    for one in comparison["items"]:
        table.add_row(
            Text(one["sampler"]),
            one["search"][:8],
            "" if one["seed"] is None else str(one["seed"]),
            str(one["trials"]),
            *([str(one["inherited"] or "")] * is_anything_inherited),
            show_seconds(one["evaluator_s"]),
            f"{100 * one['share_at_common']:.1f} %",
            f"{100 * one['share']:.1f} %",
            str(one["on_joint_front"]),
        )
    return table


_COMPARED = (
    "Hypervolume as a share of what all have found together, after as many trials as each has had and in the end; "
    "and members of the front of all."
)


def search_summary(search: Json) -> RenderableType:
    """A search's own facts, its warnings, and its problem when it failed."""
    table = Table.grid(padding=(0, 2))
    progress = search["progress"]
    table.add_row("search", search["id"])
    table.add_row("name", Text(search["name"]))
    table.add_row("state", state_text(search["state"]))
    counts = ", ".join(f"{progress[key]} {key}" for key in _COUNTED if progress.get(key))
    table.add_row("trials", f"{progress['done']} of {progress['total']}" + (f" ({counts})" if counts else ""))
    table.add_row("evaluators", f"{show_seconds(search['evaluator_s'])} on trials")
    if end := describe_end(search["end"], search.get("problem")):
        table.add_row("no more trials", Text(end))
    if obtained := describe_obtained(progress):
        table.add_row("of these", obtained)
    if extended := describe_extensions(search.get("extensions") or []):
        table.add_row("extended", extended)
    for number, begun_with in enumerate(search["spec"].get("warm_start") or []):
        table.add_row("" if number else "began with", begun_with)
    table.add_row("sampler", Text(describe_sampler(search["sampler"])))
    for budget in search["budgets"]:
        table.add_row("budget", Text(describe_budget(budget)))
    if search["waiting_for"]:
        table.add_row("waits for", Text(search["waiting_for"]))
    for warning in search.get("warnings") or []:
        table.add_row("warning", Text(str(warning), style="yellow"))
    parts: list[RenderableType] = [table]
    if search.get("problem"):
        parts.append(problem_panel(RefusedError(search["problem"])))
    return Group(*parts)


def trial_table(title: str, trials: Sequence[Json], objectives: Sequence[ObjectiveSpec]) -> Table:
    """One row per trial; a finalist's values are those on `confirm`, with the accuracy's interval.

    The objectives have columns, and of what is shown besides all that differs: 80 columns have to hold a design, too.
    """
    columns = {
        metric: [show_value(metric, trial["values"], trial["sources"]) for trial in trials]
        for metric in shown_metrics(objectives)
    }
    besides = columns.keys() - {objective.metric for objective in objectives}
    alike = {metric: columns[metric][0] for metric in columns if metric in besides and _says_nothing(columns[metric])}
    shown = {metric: cells for metric, cells in columns.items() if metric not in alike}
    table = Table(title=title, title_justify="left", box=None, header_style="bold", caption_justify="left")
    table.caption = ", ".join(_of_all(metric, cell) for metric, cell in alike.items() if cell != ABSENT) or None
    table.add_column("trial", justify="right", no_wrap=True)
    for metric in shown:
        unit = unit_of(metric)
        table.add_column(f"{unit.title}\n({unit.symbol})" if unit.symbol else unit.title, justify="right", no_wrap=True)
    table.add_column("design", min_width=_LEAST_OF_DESIGN)
    for number, trial in enumerate(trials):
        cells = [column[number] for column in shown.values()]
        words = filter(None, (describe_design(trial["design"]), describe_origin(trial.get("origin"))))
        table.add_row(str(trial["number"]), *cells, Text("; ".join(words)))
    return table


def _says_nothing(cells: Sequence[str]) -> bool:
    return len(set(cells)) == 1 and (len(cells) > 1 or cells[0] == ABSENT)


def _of_all(metric: str, cell: str) -> str:
    return f"{unit_of(metric).title} of all: {cell} {unit_of(metric).symbol}".strip()


def harmless(text: str, style: str = "") -> Text:
    """Words of others, such as names in their files: what a terminal would obey is shown as a mark."""
    return Text(
        "".join(one if one.isprintable() or one == "\n" else "\N{REPLACEMENT CHARACTER}" for one in text), style
    )


def problem_panel(error: RefusedError) -> RenderableType:
    """What was refused and, for a bad spec, each pointer beside what is wrong there."""
    heading = Text(str(error.problem.get("title") or "Refused"), style="bold red")
    if not error.faults:
        return Group(heading, harmless(str(error)))
    table = Table("where", "what", box=None, header_style="bold")
    for pointer, message in error.faults:
        table.add_row(harmless(pointer or "(whole document)", "cyan"), harmless(message))
    return Group(heading, table)


@dataclass(frozen=True, slots=True)
class Mark:
    """A point of the text plot."""

    x: float
    y: float
    symbol: str


def text_plot(marks: Sequence[Mark], x: str, y: str) -> str:
    """A scatter plot in characters, `y` upwards; later marks lie over earlier ones."""
    if not marks:
        return ""
    left, right = _range([mark.x for mark in marks])
    low, high = _range([mark.y for mark in marks])
    rows = [[" "] * PLOT_WIDTH for _ in range(PLOT_HEIGHT)]
    for mark in marks:
        column = round((mark.x - left) / (right - left) * (PLOT_WIDTH - 1))
        row = round((high - mark.y) / (high - low) * (PLOT_HEIGHT - 1))
        rows[row][column] = mark.symbol
    lines = ["  |" + "".join(row) for row in rows]
    lines.insert(0, f"  {unit_of(y).heading}, up to {unit_of(y).show(high)}")
    lines.append("  +" + "-" * PLOT_WIDTH)
    start, end = show_with_unit(x, left), show_with_unit(x, right)
    middle = unit_of(x).title.center(PLOT_WIDTH - len(start) - len(end))
    lines.append(f"   {start}{middle}{end}   (lowest {unit_of(y).title}: {unit_of(y).show(low)})")
    return "\n".join(lines)


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5 * abs(low) - 1e-12, high + 0.5 * abs(high) + 1e-12)


def search_plot(spec: SearchSpec, trials: Sequence[Json], front: Sequence[Json]) -> str:
    """All finished trials: `.` tried, `,` stopped, `o` uniform, `*` front. Empty with fewer than two objectives."""
    axes = plot_axes(spec.objectives)
    if axes is None:
        return ""
    x, y = axes[0].metric, axes[1].metric
    on_front = {trial["number"] for trial in front}
    marks = [
        Mark(trial["values"][x], trial["values"][y], _symbol(trial, on_front))
        for trial in sorted(trials, key=lambda trial: (trial["number"] in on_front, trial["baseline"]))
        if x in trial["values"] and y in trial["values"]
    ]
    return text_plot(marks, x, y)


def _symbol(trial: Json, on_front: set[int]) -> str:
    if trial["number"] in on_front:
        return "*"
    if trial["state"] == TrialState.STOPPED:
        return ","
    return "o" if trial["baseline"] else "."


def result_view(search: Json, trials: Sequence[Json], front: Sequence[Json]) -> RenderableType:
    """What came out: finalists beside uniform designs on `confirm`; before there are any, the front on `score`."""
    spec = SearchSpec.model_validate(search["spec"])
    confirmed = [_as_confirmed(trial) for trial in trials if _is_confirmed(trial)]
    of_base = describe_values((search.get("base") or {}).get("values", {}), spec.objectives)
    base = Text(f"The network itself, on the split score: {of_base}" if of_base else "", end="\n" if of_base else "")
    if not confirmed:
        uniform = [trial for trial in trials if trial["baseline"] and trial["state"] == TrialState.SUCCEEDED]
        return Group(
            trial_table("Front, on the split score", front, spec.objectives),
            trial_table("Uniform baseline, on the split score", uniform, spec.objectives),
            base,
        )
    found = [trial for trial in confirmed if not trial["baseline"]]
    uniform = [trial for trial in confirmed if trial["baseline"]]
    return Group(
        trial_table("Found, on the split confirm (95% interval)", found, spec.objectives),
        Text(),
        trial_table("Uniform baseline, treated alike, on the split confirm", uniform, spec.objectives),
        Text(),
        base,
        Text(verdict([trial["values"] for trial in found], [trial["values"] for trial in uniform], spec)),
    )


def _is_confirmed(trial: Json) -> bool:
    return bool(trial.get("confirmed")) and trial["confirmed"]["state"] == JobState.SUCCEEDED


def _as_confirmed(trial: Json) -> Json:
    return {**trial, "values": trial["confirmed"]["values"], "sources": trial["confirmed"]["sources"]}


def refinement_table(refinement: Json) -> RenderableType:
    """A design in the search, and on `confirm` before and after it was refined; or why it was not."""
    kept = "" if refinement["kept"] is not False else "; that made it worse on score, so what it began with stays"
    title = f"Trial {refinement['trial']}, {describe_training(refinement['settings'])}{kept}"
    if refinement["state"] != JobState.SUCCEEDED:
        return harmless(f"{title}: {refinement['state']} {refinement['reason']}", "red")
    table = Table("figure", box=None, header_style="bold", title=title, title_justify="left")
    for heading in ("in the search", "before, on confirm", "refined, on confirm"):
        table.add_column(heading, justify="right")
    for figure in refined_figures(refinement["searched"], refinement["before"], refinement["values"]):
        table.add_row(figure.name, figure.searched, figure.before, figure.refined)
    return table


def report_table(export: Json) -> Table:
    """An export's reported figures beside those of the file itself."""
    report = export["report"]
    split = report.get("details", {}).get("images", {}).get("split", "")
    which = ", ".join(filter(None, (f"trial {export['trial']}", describe_weights(report))))
    title = f"What the file does ({which})" + (f", on the split {split}" if split else "")
    table = Table("figure", box=None, header_style="bold", title=title, title_justify="left")
    table.add_column("reported", justify="right")
    table.add_column("of the file itself", justify="right")
    for figure in report_figures(report):
        table.add_row(figure.name, figure.reported, figure.measured)
    return table
