"""`espalier device` and `espalier estimate`: what runs networks, and what designs cost there, told by the service.

`espalier device profile` comes from the workers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from search_spaces.parse import parse_document
from service.assembled import assembled
from service.console import console, failures_explained, reach_service
from service.terminal_devices import accuracy_view, device_view, devices_table, estimates_table

devices_app = typer.Typer(
    cls=assembled("espalier.commands.device"),
    help="What runs networks, and what they take there.",
    no_args_is_help=True,
)


@devices_app.command("list")
def list_devices() -> None:
    """List the devices that are known."""
    with reach_service() as client:
        console.print(devices_table(client.devices()))


@devices_app.command("show")
def show_device(name: Annotated[str, typer.Argument(help="as specs call it")]) -> None:
    """Show what a device executes and tells, and how right its cost models were."""
    with reach_service() as client:
        console.print(device_view(client.device(name)))
        console.print(accuracy_view(client.device_accuracy(name)))


def estimate(
    spec: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="a search spec, YAML or JSON")],
    design: Annotated[list[str] | None, typer.Option(help="a JSON object of decisions, or a file with one")] = None,
    sample: Annotated[int, typer.Option(min=0, max=100, help="designs to draw from the space of the spec")] = 0,
    seed: Annotated[int | None, typer.Option(min=0, help="of the sample; default: 0")] = None,
    device: Annotated[str | None, typer.Option(help="another device than the spec's")] = None,
) -> None:
    """Tell what designs of a spec cost, now, without a search; the base where none is given."""
    if seed is not None and not sample:
        raise typer.BadParameter("a seed is of a sample: give --sample, or leave --seed out")
    with failures_explained():
        document = parse_document(spec.read_bytes(), yaml=spec.suffix != ".json")
    designs = [_read_design(text) for text in design or []]
    request = {"spec": document, "designs": designs, "sample": sample, "seed": seed or 0, "device": device}
    with reach_service() as client:
        console.print(estimates_table(client.estimate(request)))


def _read_design(text: str) -> Any:
    try:
        return json.loads(text if text.lstrip().startswith("{") else Path(text).read_text())
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"--design: {error}") from None
