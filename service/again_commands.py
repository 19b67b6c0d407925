"""Commands that go on from what a search has found: `espalier extend` and `espalier fork`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from search_spaces.faults import SpecError
from search_spaces.parse import parse_document
from service.client import Json
from service.console import console, errors, failures_explained, reach_service

SearchId = Annotated[str, typer.Argument(help="a search's id, or enough of its beginning")]


def extend(
    search: SearchId,
    trials: Annotated[int, typer.Option(min=1, help="designs that may be proposed beyond those that there are")],
    wall_time_s: Annotated[
        float | None, typer.Option(min=0, help="seconds for the extension; default: as in the spec, from now")
    ] = None,
) -> None:
    """Go on with a search that is over, with all that it has found; trials that failed are run once more."""
    with reach_service() as client:
        wanted: Json = {"trials": trials} | ({} if wall_time_s is None else {"wall_time_s": wall_time_s})
        extended = client.extend(client.resolve(search), wanted)
        console.print(f"{extended['id']} is {extended['state']}", highlight=False)


def fork(
    search: SearchId,
    changes: Annotated[
        Path | None,
        typer.Argument(exists=True, dir_okay=False, readable=True, help="the parts that differ, YAML or JSON"),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="PART=VALUE", help="such as budget.trials=50; again for more")
    ] = None,
) -> None:
    """Start a search with the spec of another, but for some parts, that begins with what that one has found."""
    with failures_explained():
        wanted: Any = {} if changes is None else parse_document(changes.read_bytes(), yaml=changes.suffix != ".json")
    if not isinstance(wanted, dict):
        raise typer.BadParameter("the file has to hold an object: the parts of the spec that differ")
    for setting in settings or ():
        _put(wanted, setting)
    with reach_service() as client:
        made = client.fork(client.resolve(search), wanted)
        console.print(made["id"], highlight=False)
        for warning in made.get("warnings") or []:
            errors.print(f"[yellow]warning[/] {warning}", highlight=False)


def _put(document: Json, setting: str) -> None:
    """Put a part's value, written as YAML, where its dotted name says."""
    name, given, text = setting.partition("=")
    *parents, last = name.split(".")
    if not given or not all([*parents, last]):
        raise typer.BadParameter(f"write PART=VALUE, such as budget.trials=50, not {setting}", param_hint="--set")
    for parent in parents:
        inner = document.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise typer.BadParameter(f"{parent} is set to a value already", param_hint="--set")
        document = inner
    try:
        document[last] = parse_document(text.encode(), yaml=True)
    except SpecError as error:
        raise typer.BadParameter(f"{name}: {error.faults[0].message}", param_hint="--set") from None
