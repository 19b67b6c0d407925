"""`espalier device`: what runs networks, told by the service; `profile` comes from the workers."""

from __future__ import annotations

from typing import Annotated

import typer

from service.assembled import assembled
from service.console import console, reach_service
from service.terminal_devices import accuracy_table, device_view, devices_table

devices_app = typer.Typer(
    cls=assembled("espalier.commands.device"),
    help="What runs networks, and what they take there.",
    no_args_is_help=True,
)


@devices_app.command("list")
def list_devices() -> None:
    """List the devices that workers have announced."""
    with reach_service() as client:
        console.print(devices_table(client.list_devices()))


@devices_app.command("show")
def show_device(name: Annotated[str, typer.Argument(help="as specs call it")]) -> None:
    """Show what a device executes and tells, and how right its cost model was."""
    with reach_service() as client:
        console.print(device_view(client.get_device(name)))
        console.print(accuracy_table(client.get_device_accuracy(name)))
