"""How the command line shows devices, cost models and estimates. Knows rich and the API's JSON, sends nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from service.client import Json
from service.units import show_with_unit, unit_of
from service.wording import counted

_MARKS = {"predicted": "~", "imported": "*", "simulated": "^"}
_LEGEND = "~ predicted, with its interval   * imported   ^ simulated; else measured or counted"
_MOST_PRECISIONS = 6


def devices_table(items: Iterable[Json]) -> Table:
    table = Table("name", "state", "tells", "what it is", box=None, header_style="bold")
    for item in items:
        told = ", ".join(unit_of(metric).title for metric in item["capabilities"]["metrics"])
        table.add_row(Text(item["name"]), _state(item), told, Text(item["capabilities"]["description"]))
    return table


def device_view(device: Json) -> RenderableType:
    """What a device executes and tells, and what it cannot tell and why."""
    told = device["capabilities"]
    facts = Table.grid(padding=(0, 2))
    facts.add_row("state", _state(device))
    facts.add_row("executes", Text(_precisions(told["precisions"]) + f", by {told['precision_scope']}"))
    facts.add_row("channels", f"best in multiples of {told['channel_divisor']}")
    facts.add_row("tells", ", ".join(unit_of(metric).title for metric in told["metrics"]))
    for metric, reason in told["unavailable"].items():
        facts.add_row(f"no {unit_of(metric).title}", Text(reason))
    for name, value in told["fingerprint"].items():
        facts.add_row(name.replace("_", " "), Text(value))
    return Group(Text(f"{device['name']}: {told['description']}", style="bold"), facts)


def accuracy_view(accuracy: Json) -> RenderableType:
    """Held-out errors of the newest models, and what searches found since."""
    if not accuracy["models"]:
        return Text("no cost model: espalier device profile makes one")
    table = Table("cost model", "networks", box=None, header_style="bold")
    for heading in ("held out", "mean error", "within 5 %", "within 10 %", "in the interval", "repeats within"):
        table.add_column(heading, justify="right")
    for model in accuracy["models"][:5]:
        _add_model(table, model)
    parts: list[RenderableType] = [table]
    for reason, found in accuracy["in_searches"].items():
        shares = f"{found['within_5_percent']:.0%} within 5 %, {found['within_10_percent']:.0%} within 10 %"
        inside = f"{found['interval_coverage']:.0%} in the interval"
        parts.append(
            Text(f"in searches, measured as {reason}: {counted(found['trials'], 'trial')}, {shares}, {inside}")
        )
    return Group(*parts)


def _add_model(table: Table, model: Json) -> None:
    current = " (in use)" if model["is_current"] else ""
    name = f"version {model['version']}, batch {model['batch']}, {counted(model['threads'], 'thread')}{current}"
    errors = model["report"]["held_out"].get("all", {"networks": 0})
    repeats = model["report"].get("repeatability")
    cells = [""] * 4
    if errors["networks"]:
        names = ("mean_error", "within_5_percent", "within_10_percent", "interval_coverage")
        cells = [f"{errors[name]:.1%}" for name in names]
    table.add_row(
        name, str(model["samples"]), str(errors["networks"]), *cells, f"{repeats['mean']:.1%}" if repeats else ""
    )


def estimates_table(estimates: Json) -> RenderableType:
    """One row for each design."""
    items = estimates["items"]
    metrics = list(dict.fromkeys(metric for item in items for metric in item["values"]))
    table = Table("design", box=None, header_style="bold")
    for metric in metrics:
        table.add_column(unit_of(metric).title, justify="right")
    for number, item in enumerate(items):
        name = f"{number}: {counted(len(item['design']), 'decision')}" if item["design"] else f"{number}: the base"
        table.add_row(name, *(_cell(metric, item) for metric in metrics))
    notes = [Text(note) for note in _missing(items)]
    marked = any(source != "measured" for item in items for source in item["sources"].values())
    return Group(table, *notes, *([Text(_LEGEND, style="dim")] if marked else []))


def _missing(items: Sequence[Json]) -> Iterator[str]:
    """Each reason once, with the designs that it is of where it is not of all."""
    designs: dict[tuple[str, str], list[str]] = {}
    for number, item in enumerate(items):
        for metric, reason in item["missing"].items():
            designs.setdefault((metric, reason), []).append(str(number))
    for (metric, reason), numbers in designs.items():
        of = "" if len(numbers) == len(items) else f" of {', '.join(numbers)}"
        yield f"no {unit_of(metric).title}{of}: {reason}"


def _cell(metric: str, item: Json) -> str:
    mark = _MARKS.get(item["sources"].get(metric, ""), "")
    shown = f"{mark}{show_with_unit(metric, item['values'].get(metric))}"
    interval = item["intervals"].get(metric)
    if interval is None:
        return shown
    unit = unit_of(metric)
    return f"{shown} ({unit.show(interval['low'])} to {unit.show(interval['high'])})"


def _state(device: Json) -> Text:
    if device["capabilities"]["simulated"]:
        return Text("simulated")
    return Text("live", style="green") if device["is_live"] else Text(f"not seen since {device['seen_at'][:16]}")


def _precisions(precisions: list[str]) -> str:
    if len(precisions) <= _MOST_PRECISIONS:
        return ", ".join(precisions)
    return f"{precisions[0]} to {precisions[-1]} ({len(precisions)} pairs)"
