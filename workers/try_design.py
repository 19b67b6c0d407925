"""`espalier try`: one design, here and now, without a service. It parses, calls the jobs and prints."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar
from rich.table import Table

from search_spaces.budgets import settled, with_budgets
from search_spaces.check import check_spec
from search_spaces.design import Design, Kind, Value, design_from_json
from search_spaces.faults import SpecError
from search_spaces.known import Known
from search_spaces.objectives import Outcome, TrialState
from search_spaces.parse import parse_document, parse_spec
from search_spaces.precision import at_least_8_bits, parse_precision
from search_spaces.space import Space, base_value
from search_spaces.spec import SearchSpec
from service.config import Settings, get_settings
from service.db import make_engine, reading, upgrade
from service.known import known_for
from service.wording import counted
from workers.progress import Progress

console = Console()

_OPTIONS = {Kind.CHANNELS: "--ratio", Kind.PRECISION: "--precision", Kind.GROUP_SIZE: "--group-size"}
# `stopped` is not among them: what is tried alone is evaluated in full.
_STATE_STYLES = {TrialState.SUCCEEDED: "green", TrialState.INFEASIBLE: "yellow", TrialState.FAILED: "red"}


def try_design(
    spec_path: Annotated[Path, typer.Argument(metavar="SPEC", exists=True, dir_okay=False, help="YAML or JSON")],
    design: Annotated[str | None, typer.Option(help="a JSON object of decisions, or a file with one")] = None,
    ratio: Annotated[float | None, typer.Option(min=0.0, max=0.99, help="prune every layer by this ratio")] = None,
    precision: Annotated[str | None, typer.Option(help="of every block, such as w8a8")] = None,
    group_size: Annotated[int | None, typer.Option(min=1, help="of every depthwise layer")] = None,
    home: Annotated[Path | None, typer.Option(help="default: ESPALIER_HOME, or ~/.espalier")] = None,
) -> None:
    """Try one design of a spec here: build, measure and score it, and show what each stage takes."""
    asked = {Kind.CHANNELS: ratio, Kind.PRECISION: precision, Kind.GROUP_SIZE: group_size}
    given = {kind: value for kind, value in asked.items() if value is not None}
    if design is not None and given:
        names = " or ".join(_OPTIONS[kind] for kind in given)
        raise typer.BadParameter(f"a design says all that differs from the base: give --design, or {names}, not both")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # torch's threads leave the cores to whoever else works here
    # Imported here: torch and ONNX Runtime take seconds, and `--help` needs neither.
    from workers import jobs

    settings = get_settings() if home is None else get_settings().model_copy(update={"home": home.expanduser()})
    with _faults_shown():
        spec = parse_spec(parse_document(spec_path.read_bytes(), yaml=spec_path.suffix != ".json"))
        checked = check_spec(spec, _known_here(spec, settings))
        _check_varied(checked.space, given)
        if design is None:
            chosen = uniform_design(checked.space, ratio or 0.0, precision, group_size)
        else:
            chosen = _read_design(design)
        checked.space.indices_of(chosen)
    for warning in checked.warnings:
        console.print(f"[yellow]warning[/] {warning}")
    with _progress_bar() as progress:
        prepared = jobs.prepare(spec, checked.sources, settings.home, progress)
        judged = with_budgets(spec, settled(checked.budgets, prepared["budget_bases"]))
        outcome = jobs.evaluate(judged, checked.sources, chosen, prepared["base_key"], settings.home, progress)
    for warning in prepared["warnings"]:
        console.print(f"[yellow]warning[/] {warning}")
    _show(spec, chosen, prepared["values"], outcome)
    raise typer.Exit(1 if outcome.state is TrialState.FAILED else 0)


def _check_varied(space: Space, kinds: Iterable[Kind]) -> None:
    """Raises `ValueError` for an option that would change nothing."""
    for kind in kinds:
        if not any(decision.kind is kind for decision in space.decisions):
            raise ValueError(f"{_OPTIONS[kind]}: the space of this spec does not vary that; leave the option out")


def _known_here(spec: SearchSpec, settings: Settings) -> Known:
    """What is installed, and what the service knows whose database and home folder are used here."""
    from workers.announce import local_known

    known = local_known()
    if not known.lacks(spec):
        return known
    upgrade(settings.resolved_database_url)
    with reading(make_engine(settings.resolved_database_url)) as session:
        brought = known_for(session, spec)
    return replace(
        known,
        networks=brought.networks,
        datasets=brought.datasets,
        unready=brought.unready,
        searches=brought.searches,
    )


def uniform_design(space: Space, ratio: float, precision: str | None, group_size: int | None) -> Design:
    """The same ratio, precision and group size everywhere: of each decision's choices the nearest to the ratio.

    What has no value of the base's own, such as a method, is as in the uniform baseline: the first choice. First and
    last layer get at least 8 bits where the space leaves them no fewer.
    """
    offered = {choice for decision in space.decisions for choice in decision.choices}
    values: dict[str, Value] = {}
    for decision in space.decisions:
        if decision.kind is Kind.CHANNELS:
            counts = [int(count) for count in decision.choices]
            values[decision.name] = min(counts, key=lambda count: abs(count - (1 - ratio) * max(counts)))
        elif decision.kind is Kind.PRECISION and precision is not None:
            is_raised = precision in offered and precision not in decision.choices
            values[decision.name] = str(at_least_8_bits(parse_precision(precision))) if is_raised else precision
        elif decision.kind is Kind.GROUP_SIZE and group_size is not None:
            values[decision.name] = group_size
        elif base_value(space.network, decision) not in decision.choices:
            values[decision.name] = decision.choices[0]
    return Design.of(values)


def _read_design(text: str) -> Design:
    path = Path(text)
    return design_from_json(json.loads(text if text.lstrip().startswith("{") else path.read_text()))


@contextmanager
def _faults_shown() -> Iterator[None]:
    """Bad input ends the command with one line for each fault."""
    try:
        yield
    except SpecError as error:
        for fault in error.faults:
            console.print(f"[red]{fault.pointer or 'spec'}[/] {fault.message}")
        raise typer.Exit(2) from None
    except (ValueError, OSError) as error:
        console.print(f"[red]design[/] {error}")
        raise typer.Exit(2) from None


@contextmanager
def _progress_bar() -> Iterator[Progress]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with ProgressBar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=1.0)

        def progress(stage: str, done: float, message: str) -> None:
            bar.update(task, description=f"{stage}: {message}", completed=done)

        yield progress


def _show(spec: SearchSpec, design: Design, of_base: Mapping[str, float], outcome: Outcome) -> None:
    stages = Table("stage", box=None, header_style="bold")
    stages.add_column("seconds", justify="right")
    for stage, seconds in outcome.details["stage_s"].items():
        stages.add_row(stage, f"{seconds:.3f}")
    values = Table("value", box=None, header_style="bold")
    values.add_column("base", justify="right")
    values.add_column(spec.name, justify="right")
    for name, value in outcome.values.items():
        values.add_row(name, _number(of_base.get(name)), _number(value))
    console.print(f"{counted(len(design), 'decision')} {'differs' if len(design) == 1 else 'differ'} from the base")
    console.print(stages, values, sep="\n")
    console.print(f"[{_STATE_STYLES[outcome.state]}]{outcome.state}[/] {outcome.reason}")


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.6g}"
