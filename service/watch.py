"""Showing a search while it runs: a live view in a terminal, one line per happening anywhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from search_spaces.parse import parse_spec
from search_spaces.spec import SearchSpec
from service import terminal
from service.client import Client, Json
from service.states import EventKind, JobState
from service.wording import best_values, describe_activity, describe_end, describe_origin, describe_values

_OPEN = (JobState.QUEUED, JobState.RUNNING)
LINE_EVERY_SHARE = 0.1  # of a stage, in the plain view


@dataclass(frozen=True)
class Moment:
    """What is known of a search at one time.

    Attributes:
        trials: those that have ended. A trial here is what its event tells: number, baseline, state, values, reason.
        fresh, confirmed: the trials that ended, and the finalists that were confirmed, since the moment before.
    """

    search: Json
    trials: tuple[Json, ...]
    fresh: tuple[Json, ...]
    confirmed: tuple[Json, ...]

    @property
    def activity(self) -> str:
        return describe_activity(self.search.get("activity"))

    @property
    def end(self) -> str:
        """Why no more trials are asked for; empty while they go on."""
        return describe_end(self.search.get("end"), self.search.get("problem"))

    @property
    def spec(self) -> SearchSpec:
        return parse_spec(self.search["spec"])


def watch_search(client: Client, search_id: str, console: Console) -> Json:
    """Show the search until it is final; returns it as it is then."""
    moments = _moments(client, search_id)
    if console.is_terminal:
        return _watch_live(moments, lambda: list(client.front(search_id)["items"]), console)
    return _watch_in_lines(moments, console)


def _moments(client: Client, search_id: str) -> Iterator[Moment]:
    trials: dict[int, Json] = {}
    last = 0
    for search in client.changes(search_id):
        news = list(client.events(search_id, after=last))
        last = news[-1]["id"] if news else last
        fresh = _ended(news, EventKind.TRIAL)
        trials |= {trial["number"]: trial for trial in fresh}
        yield Moment(search, tuple(trials.values()), fresh, _ended(news, EventKind.FINALIST))


def _ended(news: Sequence[Json], kind: EventKind) -> tuple[Json, ...]:
    return tuple(one["data"] for one in news if one["kind"] == kind and one["data"]["state"] not in _OPEN)


def _watch_live(moments: Iterator[Moment], read_front: Callable[[], list[Json]], console: Console) -> Json:
    bar = Progress(TextColumn("trials"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn())
    task = bar.add_task("trials", total=None)
    search: Json = {}
    front: list[Json] = []
    with Live(console=console, refresh_per_second=4) as live:
        for moment in moments:
            search = moment.search
            front = read_front() if moment.fresh else front
            bar.update(task, completed=search["progress"]["done"], total=search["progress"]["total"])
            live.update(_scene(moment, front, bar))
    return search


def _scene(moment: Moment, front: Sequence[Json], bar: Progress) -> RenderableType:
    heading = Text.assemble(
        moment.search["name"], "  ", terminal.state_text(moment.search["state"]), "  ", moment.activity
    )
    best = Text(f"best so far: {best_values(moment.spec.objectives, _feasible(moment))}")
    plot = Text(terminal.search_plot(moment.spec, moment.trials, front))
    end = [Text(f"no more trials: {moment.end}")] if moment.end else []
    waiting = [Text(f"waits: {moment.search['waiting_for']}", style="yellow")] if moment.search["waiting_for"] else []
    warnings = [Text(f"warning: {one}", style="yellow") for one in moment.search.get("warnings") or []]
    return Group(heading, *end, *waiting, *warnings, bar, best, plot)


def _feasible(moment: Moment) -> list[Json]:
    return [trial["values"] for trial in moment.trials if trial["state"] == "succeeded"]


@dataclass
class _Said:
    """What the plain view has already printed."""

    state: str = ""
    waiting: str = ""
    end: str = ""
    stage: str = ""
    share: float = field(default=0.0)
    warnings: int = 0


def _watch_in_lines(moments: Iterator[Moment], console: Console) -> Json:
    said = _Said()
    search: Json = {}
    for moment in moments:
        search = moment.search
        for line in _new_lines(moment, said):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    return search


def _new_lines(moment: Moment, said: _Said) -> Iterator[str]:
    state, activity = moment.search["state"], moment.search.get("activity")
    waiting = moment.search["waiting_for"]
    if (state, waiting) != (said.state, said.waiting):
        said.state, said.waiting = state, waiting
        yield f"{state}: {waiting}" if waiting else str(state)
    if moment.end and moment.end != said.end:
        said.end = moment.end
        yield f"no more trials: {moment.end}"
    warnings = moment.search.get("warnings") or []
    for warning in warnings[said.warnings :]:
        yield f"warning: {warning}"
    said.warnings = len(warnings)
    total = moment.search["progress"]["total"]
    for done, trial in enumerate(moment.fresh, start=len(moment.trials) - len(moment.fresh) + 1):
        yield trial_line(trial, moment.spec, f"{done}/{total}")
    for finalist in moment.confirmed:
        yield f"confirmed trial {finalist['number']}: {_found(finalist, moment.spec)}"
    if activity and not moment.fresh:
        is_new = activity["stage"] != said.stage or activity["share"] < said.share
        if is_new or activity["share"] >= said.share + LINE_EVERY_SHARE:
            said.stage, said.share = activity["stage"], activity["share"]
            yield f"  {moment.activity}"


def trial_line(trial: Json, spec: SearchSpec, count: str) -> str:
    """One finished trial, such as `trial 12 (13/71) succeeded: accuracy 89.10 %, latency 0.412 ms`.

    What was not good enough has values, too, and tells why.
    """
    kind = "uniform" if trial["baseline"] else "trial"
    parts = [
        describe_values(trial["values"], spec.objectives),
        str(trial["reason"]),
        describe_origin(trial.get("origin")),
    ]
    return f"{kind} {trial['number']} ({count}) {trial['state']}: {'; '.join(filter(None, parts))}"


def _found(trial: Json, spec: SearchSpec) -> str:
    return describe_values(trial["values"], spec.objectives) or str(trial["reason"])
