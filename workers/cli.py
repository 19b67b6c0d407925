"""The commands that do work in this process. `espalier` finds them through the entry point `espalier.commands`."""

from __future__ import annotations

import logging
import shlex
from typing import Annotated

import typer

from service.config import get_settings
from service.queue import QueueName
from workers.evaluator_process import EVALUATOR_COMMAND
from workers.try_design import try_design

app = typer.Typer(help="Commands that do the work here.", no_args_is_help=True, add_completion=False)


app.command("try")(try_design)


@app.command()
def worker(
    queues: Annotated[str, typer.Option(help="which to work on, with commas between")] = "control,trials",
    concurrency: Annotated[int, typer.Option(min=1, help="how many jobs at once, each with its evaluator")] = 1,
    evaluator: Annotated[
        str, typer.Option(help="the command that evaluates, to wrap or pin it: a line of shell words")
    ] = shlex.join(EVALUATOR_COMMAND),
) -> None:
    """Work on searches, and announce this machine's devices, until told to stop."""
    from workers.app import run_worker  # loads Celery: nothing else here should pay for it

    try:
        names = [QueueName(name.strip()) for name in queues.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"{error}; there are {', '.join(QueueName)}") from None
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s worker %(levelname)s %(name)s: %(message)s")
    raise typer.Exit(run_worker(get_settings(), names, concurrency, shlex.split(evaluator)))


if __name__ == "__main__":
    app()
