"""The commands that do work in this process. `espalier` finds them through the entry point `espalier.commands`."""

from __future__ import annotations

import logging
import shlex
from typing import Annotated

import typer

from service.config import get_settings
from service.queue import QueueName
from workers.device_name import DeviceName
from workers.evaluator_process import EVALUATOR_COMMAND
from workers.try_design import try_design

app = typer.Typer(help="Commands that do the work here.", no_args_is_help=True, add_completion=False)


app.command("try")(try_design)


@app.command()
def worker(
    queues: Annotated[
        str | None, typer.Option(help="which to work on, with commas between; control,trials when nothing is given")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME[=KIND]", help="work for this device of this machine only, as specs call it"),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="how many jobs at once, each with its evaluator")] = 1,
    evaluator: Annotated[
        str, typer.Option(help="the command that evaluates, to wrap or pin it: a line of shell words")
    ] = shlex.join(EVALUATOR_COMMAND),
) -> None:
    """Work on searches, and announce this machine's devices, until told to stop."""
    from workers.app import Role, run_worker  # loads Celery: nothing else here should pay for it

    if device is not None and queues is not None:
        raise typer.BadParameter("give --device or --queues: a worker for one device has the queues of that device")
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s worker %(levelname)s %(name)s: %(message)s")
    role = Role(_queues("control,trials" if queues is None else queues)) if device is None else Role((), _named(device))
    raise typer.Exit(run_worker(get_settings(), role, concurrency, shlex.split(evaluator)))


def _queues(text: str) -> tuple[QueueName, ...]:
    try:
        return tuple(QueueName(name.strip()) for name in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"{error}; there are {', '.join(QueueName)}") from None


def _named(text: str) -> DeviceName:
    from workers.hardware.named import DeviceNameError, parse_device  # loads the runtimes

    try:
        return parse_device(text)
    except DeviceNameError as error:
        raise typer.BadParameter(f"--device: {error}") from None


if __name__ == "__main__":
    app()
