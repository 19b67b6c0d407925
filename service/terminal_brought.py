"""How the command line shows networks and data sets. Knows rich and the API's JSON, sends nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from service.brought import Fact, class_rows, dataset_facts, fixed_parts, network_facts, notes_of, usable_version
from service.client import Json, RefusedError
from service.terminal import harmless, problem_panel, state_text

MOST_ROWS = 30


def network_table(items: Iterable[Json]) -> Table:
    table = Table("name", "kind", "state", "what it is", box=None, header_style="bold")
    for item in items:
        table.add_row(Text(item["name"]), item["kind"], state_text(item["state"]), Text(item["description"]))
    return table


def network_view(network: Json) -> RenderableType:
    """What was found in a network, what cannot be searched of it, and what to know."""
    report = network["report"]
    parts: list[RenderableType] = [_heading(network["name"], network["state"]), _facts(network_facts(report))]
    fixed = fixed_parts(report)
    if fixed:
        parts += [Text("What cannot be searched", style="bold"), _facts(fixed[:MOST_ROWS]), _rest(fixed)]
    return Group(*parts, *_told(network["problem"], notes_of(report)))


def dataset_table(items: Iterable[Json]) -> Table:
    table = Table("name", "state", box=None, header_style="bold")
    table.add_column("images", justify="right")
    table.add_column("classes", justify="right")
    table.add_column("what it is")
    for item in items:
        images = f"{item['images'] + item['test_images']:,}"
        table.add_row(
            Text(item["name"]), state_text(item["state"]), images, str(item["classes"]), Text(item["description"])
        )
    return table


def dataset_view(dataset: Json) -> RenderableType:
    """What was found in a data set as specs mean it; and how its newest version is."""
    newest, usable = dataset["versions"][0], usable_version(dataset)
    report = usable["report"]
    title = f"{dataset['name']}, version {usable['version']}"
    parts: list[RenderableType] = [_heading(title, usable["state"]), _facts(dataset_facts(dataset, report))]
    if newest is not usable:
        parts.append(_heading(f"version {newest['version']}", newest["state"]))
    classes = class_rows(report)
    if classes:
        table = Table("class", box=None, header_style="bold")
        for split in report["splits"]:
            table.add_column(split, justify="right")
        for row in classes[:MOST_ROWS]:
            table.add_row(harmless(row[0]), *row[1:])
        parts += [table, _rest(classes)]
    return Group(*parts, *_told(newest["problem"], notes_of(report)))


def _heading(name: str, state: str) -> Text:
    return Text.assemble((name, "bold"), "  ", state_text(state))


def _facts(facts: Sequence[Fact]) -> Table:
    table = Table.grid(padding=(0, 2))
    for fact in facts:
        table.add_row(harmless(fact.name), harmless(fact.text))
    return table


def _rest(rows: Sequence[object]) -> Text:
    return Text(f"and {len(rows) - MOST_ROWS:,} more" if len(rows) > MOST_ROWS else "", end="")


def _told(problem: Json | None, notes: Sequence[str]) -> list[RenderableType]:
    told: list[RenderableType] = [harmless(f"note: {note}", "yellow") for note in notes]
    return [*told, problem_panel(RefusedError(problem))] if problem else told
