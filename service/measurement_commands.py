"""`espalier measurements`: tables of figures handed over, handed out, and compared with what a network needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from search_spaces.costs import WorkloadKind
from search_spaces.objectives import Metric, Provenance
from search_spaces.spec import Family
from service.bring_commands import progress_bar
from service.client import Json
from service.console import console, reach_service
from service.measurements.table_settings import TableFormat, Unit
from service.units import unit_of

measurements_app = typer.Typer(help="Figures of workloads on devices.", no_args_is_help=True)

Device = Annotated[str | None, typer.Option(help="that the figures are of")]
NETWORK_HELP = "of the catalog network whose layers the table has"


@measurements_app.command("import")
def import_measurements(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="CSV, Parquet, or a published format")],
    device: Device = None,
    new_device: Annotated[bool, typer.Option("--new-device", help="no worker has announced it, and I mean it")] = False,
    format: Annotated[TableFormat | None, typer.Option(help="default: CSV or Parquet, as the file says")] = None,
    unit: Annotated[Unit | None, typer.Option(help="of the values, where no column says so")] = None,
    batch: Annotated[int | None, typer.Option(help="images of one inference")] = None,
    threads: Annotated[int | None, typer.Option(help="that the runtime could use")] = None,
    runtime: Annotated[str | None, typer.Option(help="what executed, such as 'tflite 2.16'")] = None,
    count: Annotated[int | None, typer.Option(help="how many values each figure is of")] = None,
    provenance: Annotated[Provenance | None, typer.Option(help="what the figures are: measured or simulated")] = None,
    precision: Annotated[str | None, typer.Option(help="of blocks, such as fp32")] = None,
    family: Annotated[Family | None, typer.Option(help=NETWORK_HELP)] = None,
    width: Annotated[float | None, typer.Option(help="of that network")] = None,
    input: Annotated[str | None, typer.Option(help="channels,height,width of that network")] = None,
    classes: Annotated[int | None, typer.Option(help="outputs of that network")] = None,
    clock_hz: Annotated[float | None, typer.Option(help="cycles in a second, of a table of cycles")] = None,
) -> None:
    """Hand over a table of figures: all of it is stored, or nothing, and what is wrong is said by row."""
    settings = {
        "device": device,
        "new_device": new_device or None,
        "format": format,
        "unit": unit,
        "batch": batch,
        "threads": threads,
        "runtime": runtime,
        "count": count,
        "provenance": provenance,
        "precision": precision,
        "family": family,
        "width": width,
        "input": None if input is None else _shape(input),
        "classes": classes,
        "clock_hz": clock_hz,
    }
    given = {key: value for key, value in settings.items() if value is not None}
    with reach_service() as client:
        with progress_bar("handing over") as tell:
            found = client.bring_measurements(file, file.name, given, tell)
        console.print(_import_line(found), highlight=False, soft_wrap=True)


@measurements_app.command("export")
def export_measurements(
    output: Annotated[Path, typer.Argument(dir_okay=False, help="a file that ends in .csv or .parquet")],
    device: Device = None,
    metric: Annotated[Metric | None, typer.Option(help="such as latency_s")] = None,
    kind: Annotated[WorkloadKind | None, typer.Option(help="of workload")] = None,
    provenance: Annotated[Provenance | None, typer.Option(help="where the figures come from")] = None,
    stale: Annotated[bool | None, typer.Option("--stale/--not-stale", help="of devices as they were, or are")] = None,
) -> None:
    """Write figures to a table that can be imported elsewhere."""
    if output.suffix not in (".csv", ".parquet") or not output.parent.is_dir():
        message = "give a file that ends in .csv or .parquet, in a folder that is there"
        raise typer.BadParameter(message, param_hint="OUTPUT")
    filters = {"device": device, "metric": metric, "kind": kind, "provenance": provenance, "stale": stale}
    given = {key: value for key, value in filters.items() if value is not None}
    with reach_service() as client, progress_bar("fetching") as tell:
        size = client.fetch_measurements(output, output.suffix.removeprefix("."), given, tell)
    console.print(f"wrote {output} ({size:,} bytes)", highlight=False, soft_wrap=True)


@measurements_app.command("coverage")
def show_coverage(
    device: Annotated[str, typer.Option(help="that the figures are to be of")],
    network: Annotated[str | None, typer.Option(help="an imported network")] = None,
    family: Annotated[Family | None, typer.Option(help="or one of the catalog")] = None,
    width: Annotated[float | None, typer.Option(help="of that family")] = None,
    input: Annotated[str | None, typer.Option(help="channels,height,width of that family's network")] = None,
    classes: Annotated[int | None, typer.Option(help="its outputs; default: 1000")] = None,
    precision: Annotated[str | None, typer.Option(help="of all its layers; default: fp32")] = None,
    metric: Annotated[Metric | None, typer.Option(help="default: latency_s")] = None,
    batch: Annotated[int | None, typer.Option(help="images of one inference; default: the device's own")] = None,
    threads: Annotated[int | None, typer.Option(help="that the runtime could use; default: the device's own")] = None,
    allow_stale: Annotated[bool, typer.Option("--allow-stale", help="count figures of the device as it was")] = False,
) -> None:
    """Name every workload of a network that nothing is known of; exit status 1 when there are any."""
    wanted = {
        "device": device,
        "network": network,
        "family": family,
        "width": width,
        "input": input,
        "classes": classes,
        "precision": precision,
        "metric": metric,
        "batch": batch,
        "threads": threads,
        "allow_stale": allow_stale or None,
    }
    with reach_service() as client:
        found = client.coverage({key: value for key, value in wanted.items() if value is not None})
    console.print(_coverage_line(found), highlight=False, soft_wrap=True)
    if found["missing"]:
        console.print(_missing_table(found["missing"]))
        raise typer.Exit(1)


def _import_line(found: Json) -> str:
    unchecked = f"; {found['unchecked']:,} could not be compared with their work" if found["unchecked"] else ""
    return (
        f"{escape(found['filename'])}: {found['measurements']:,} figures of {found['workloads']:,} workloads under "
        f"{found['conditions']:,} conditions, import {found['id']}{unchecked}"
    )


def _coverage_line(found: Json) -> str:
    known = found["workloads"] - len(found["missing"])
    how = ", ".join(f"{count} as {kind}" for kind, count in found["found"].items()) or "nothing"
    whole = "the whole network too" if found["whole_network"] else "not the whole network"
    stale = f"; {found['stale']} only of the device as it was" if found["stale"] else ""
    return (
        f"{escape(found['network'])} on {escape(found['device'])}, {unit_of(found['metric']).title}: {known} of "
        f"{found['workloads']} workloads are known ({how}; {whole}){stale}"
    )


def _missing_table(missing: list[Json]) -> Table:
    table = Table(title="Nothing is known of")
    for name in ("nodes", "kind", "digest"):
        table.add_column(name, overflow="fold")
    for one in missing:
        table.add_row(escape(", ".join(one["nodes"])), one["kind"], one["digest"][:12])
    return table


def _shape(text: str) -> list[Any]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"write three numbers with commas between, not {text!r}", param_hint="--input"
        ) from None
