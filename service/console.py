"""The command line's two ends: what is printed where, and a service that is reached or explained away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from search_spaces.faults import SpecError
from service import terminal
from service.client import Client, RefusedError, UnreachableError, connect, service_url
from service.config import get_settings

console = Console()
errors = Console(stderr=True)


@contextmanager
def reach_service() -> Iterator[Client]:
    """A client of the service that the settings name; see `failures_explained`."""
    with failures_explained(), connect(service_url(get_settings())) as client:
        yield client


@contextmanager
def failures_explained() -> Iterator[None]:
    """Foreseeable failures end with a few lines for people and exit status 1, never a traceback."""
    try:
        yield
    except UnreachableError as error:
        errors.print(f"[red]No service answers at {error}.[/] Start one with: espalier up", highlight=False)
        raise typer.Exit(1) from None
    except RefusedError as error:
        errors.print(terminal.problem_panel(error))
        raise typer.Exit(1) from None
    except SpecError as error:
        errors.print(terminal.problem_panel(_as_problem(error)))
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _as_problem(error: SpecError) -> RefusedError:
    faults = [{"pointer": fault.pointer, "detail": fault.message} for fault in error.faults]
    return RefusedError({"title": "The spec has faults", "errors": faults})
