"""`espalier device profile`: measures here what networks take, so that searches can be told without measuring."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from sqlalchemy import Engine

from search_spaces.build_space import SpaceError
from search_spaces.capabilities import DeviceCapabilities
from search_spaces.catalog import build_network
from search_spaces.network import Network, network_from_json
from search_spaces.spec import Family, NetworkSpec
from service.config import get_settings
from service.db import make_engine, reading, transaction, upgrade
from service.devices.actions import DeviceTakenError, describe, this_process
from service.models import CostModel
from service.networks.queries import find_network
from service.wording import counted
from workers.device_name import DeviceName

app = typer.Typer(help="What runs networks, and what they take there.", no_args_is_help=True)
console = Console()

_USUAL_INPUT = "3,32,32"
_CLASSES = 10
"""Of a catalog network that is profiled: the last layer is a small part of it."""


@app.command()
def profile(
    device: Annotated[str, typer.Argument(metavar="NAME[=KIND]", help="as specs call it, such as local-cpu")],
    network: Annotated[list[str], typer.Option(help="a family of the catalog, or a network that you have imported")],
    input: Annotated[
        str | None, typer.Option(help="channels,height,width of catalog networks; default: 3,32,32")
    ] = None,
    width: Annotated[float | None, typer.Option(min=0.05, max=4.0, help="of catalog networks; default: 1")] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="to measure for, all networks together")] = 5.0,
    batch: Annotated[list[int] | None, typer.Option(help="images at a time; each is a profile of its own")] = None,
    threads: Annotated[list[int] | None, typer.Option(help="likewise; default: as searches measure")] = None,
) -> None:
    """Measure what networks take on a device of this machine, and fit its cost model; can be stopped and resumed."""
    if (input, width) != (None, None) and not any(name in set(Family) for name in network):
        raise typer.BadParameter("--input and --width are of catalog networks, and none is named: leave them out")
    # Imported here: the runtimes take seconds, and `--help` needs none.
    from workers.hardware.timing import DEFAULT_PROTOCOL
    from workers.host_lock import HostBusyError, HostLockError, measuring_for_long
    from workers.profile import Profile

    settings = get_settings()
    upgrade(settings.resolved_database_url)
    engine = make_engine(settings.resolved_database_url)
    found, named = _find_device(device)
    capabilities = found.capabilities()
    networks = [_find_network(engine, name, input or _USUAL_INPUT, width or 1.0) for name in network]
    batches, thread_counts = batch or [capabilities.batch], threads or [capabilities.threads]
    combinations = list(dict.fromkeys(product(batches, thread_counts)))
    _check_offered(capabilities, combinations)
    try:
        with transaction(engine) as session:
            describe(session, capabilities, this_process(), named.kind)
        with measuring_for_long():
            for one_batch, one_threads in combinations:
                protocol = replace(DEFAULT_PROTOCOL, batch=one_batch, threads=one_threads)
                taken = Profile(engine, found, capabilities, protocol)
                _take(taken, networks, 60 * minutes / len(combinations))
    except (DeviceTakenError, HostBusyError, HostLockError, SpaceError) as error:
        _fail(str(error))


def _take(taken: Any, networks: Sequence[Network], seconds: float) -> None:
    from workers.additive_fit import TooFewError
    from workers.cost_models import fit_model
    from workers.profile import conditions_of, take_profile

    try:
        with _bar() as bar:
            task = bar.add_task("starting", total=1.0)
            for step in take_profile(taken, networks, seconds):
                told = f"{step.network}: {step.done} measured, the last {1e3 * step.latency_s:.3f} ms"
                bar.update(task, completed=step.share, description=told)
    except KeyboardInterrupt:
        console.print("stopped; what was measured is kept, and the same command goes on from here")
        raise typer.Exit(130) from None
    with reading(taken.engine) as session:
        conditions_id = conditions_of(session, taken)
    if conditions_id is None:
        _fail("nothing was measured; give it more --minutes")
    try:
        with console.status("fitting the cost model"):
            fitted = fit_model(taken.engine, conditions_id)
    except TooFewError as error:
        _fail(f"{error}; give it more --minutes")
    _show(fitted, taken.capabilities.name, taken.protocol.batch, taken.protocol.threads)


def _find_device(text: str) -> tuple[Any, DeviceName]:
    from workers.hardware.named import DeviceNameError, NamedDevice, parse_device

    try:
        named = parse_device(text)
    except DeviceNameError as error:
        _fail(str(error))
    found = NamedDevice(named.name, named.kind)
    if found.capabilities().simulated:
        _fail(f"{named.kind} is simulated: its figures are computed, so that there is nothing to profile")
    return found, named


def _find_network(engine: Engine, name: str, input: str, width: float) -> Network:
    if name in {str(family) for family in Family}:
        try:
            channels, height, columns = (int(part) for part in input.split(","))
            spec = NetworkSpec(family=Family(name), width=width, input=(channels, height, columns))
        except ValueError as error:
            _fail(f"--input: {error}; write three whole numbers such as 3,32,32")
        return build_network(spec, _CLASSES, (0.5,) * channels, (0.5,) * channels)
    with reading(engine) as session:
        row = find_network(session, name)
    if row is None or row.network is None:
        _fail(f"there is no network {name!r}; name a family ({', '.join(Family)}) or one that you have imported")
    return network_from_json(row.network)


def _check_offered(capabilities: DeviceCapabilities, combinations: Sequence[tuple[int, int]]) -> None:
    for batch, threads in combinations:
        if batch not in capabilities.batches or threads not in capabilities.thread_counts:
            _fail(
                f"{capabilities.name} offers batches of {', '.join(map(str, capabilities.batches))} and "
                f"{', '.join(map(str, capabilities.thread_counts))} threads, not a batch of {batch} on {threads}"
            )


@contextmanager
def _bar() -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        yield bar


def _show(fitted: CostModel, device: str, batch: int, threads: int) -> None:
    setting = f"batch {batch}, {counted(threads, 'thread')}"
    console.print(
        f"cost model version {fitted.version} of {device}, {setting}: fitted to {fitted.samples} networks",
        highlight=False,
    )
    table = Table("networks it was not fitted to", box=None, header_style="bold")
    for heading in ("number", "mean error", "within 5 %", "within 10 %", "rank corr.", "in the 90 % interval"):
        table.add_column(heading, justify="right")
    for name, errors in fitted.report["held_out"].items():
        table.add_row(name, *_error_cells(errors))
    console.print(table)
    repeats = fitted.report["repeatability"]
    if repeats:
        console.print(
            f"measured twice, {repeats['pairs']} networks differ by {repeats['mean']:.1%} in the mean", highlight=False
        )


def _error_cells(errors: Mapping[str, Any]) -> list[str]:
    if not errors["networks"]:
        return ["0", *[""] * 5]
    rank = errors["rank_correlation"]
    shares = [errors[name] for name in ("within_5_percent", "within_10_percent")]
    return [
        str(errors["networks"]),
        f"{errors['mean_error']:.1%}",
        *(f"{share:.0%}" for share in shares),
        "" if rank is None else f"{rank:.3f}",
        f"{errors['interval_coverage']:.0%}",
    ]


def _fail(message: str) -> NoReturn:
    console.print(f"[red]error[/] {message}", highlight=False, soft_wrap=True)
    raise typer.Exit(2)
