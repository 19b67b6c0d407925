"""`espalier network` and `espalier dataset`: what engineers bring of their own, handed over and looked at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from search_spaces.network import Interpolation
from search_spaces.spec import Family
from service.client import Tell
from service.console import console, errors, reach_service
from service.network_packing import pack_network
from service.packing import PackingError, pack
from service.terminal_brought import dataset_table, dataset_view, network_table, network_view

networks_app = typer.Typer(help="Trained networks of your own.", no_args_is_help=True)
datasets_app = typer.Typer(help="Data sets of your own.", no_args_is_help=True)

Name = Annotated[str, typer.Option(help="what specs call it by")]
GivenName = Annotated[str, typer.Argument(help="what specs call it by")]


@networks_app.command("import")
def import_network(
    file: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, help="ONNX, a zip of it and its data, or safetensors weights"),
    ],
    name: Name,
    input: Annotated[str | None, typer.Option(help="channels,height,width, where the file leaves them open")] = None,
    mean: Annotated[str | None, typer.Option(help="of pixel values in [0, 1], such as 0.485,0.456,0.406")] = None,
    std: Annotated[str | None, typer.Option(help="likewise, such as 0.229,0.224,0.225")] = None,
    resize: Annotated[int | None, typer.Option(help="pixels of the shorter side, before the middle is cut out")] = None,
    interpolation: Annotated[Interpolation | None, typer.Option(help="of resizing")] = None,
    classes: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="a text file with a class a line, by output")
    ] = None,
    family: Annotated[Family | None, typer.Option(help="of the catalog, that weights are of")] = None,
    width: Annotated[float | None, typer.Option(help="of that family")] = None,
    stem_stride: Annotated[int | None, typer.Option(help="of that family")] = None,
) -> None:
    """Hand over a trained network; a worker proves that it is computed as in your file."""
    settings = {
        "input": _numbers(input, int, "--input"),
        "mean": _numbers(mean, float, "--mean"),
        "std": _numbers(std, float, "--std"),
        "resize": resize,
        "interpolation": interpolation,
        "class_names": None if classes is None else _lines(classes),
        "family": family,
        "width": width,
        "stem_stride": stem_stride,
    }
    given = {key: value for key, value in settings.items() if value is not None}
    with reach_service() as client, pack_network(file) as packed:
        with progress_bar("handing over") as tell:
            network = client.bring_network(packed, file.name, name, given, tell)
        with progress_bar("importing") as tell:
            network = client.await_network(network, tell)
        console.print(network_view(network))


@networks_app.command("list")
def list_networks() -> None:
    """List the families of the catalog, and what was imported."""
    with reach_service() as client:
        console.print(network_table(client.networks()))


@networks_app.command("show")
def show_network(name: GivenName) -> None:
    """Show what can be searched of an imported network, and what cannot and why."""
    with reach_service() as client:
        console.print(network_view(client.network(name)))


@datasets_app.command("add")
def add_dataset(
    path: Annotated[
        Path,
        typer.Argument(exists=True, help="a folder of class folders or IDX files, a CSV beside its images, zip or npz"),
    ],
    name: Name,
    extend: Annotated[bool, typer.Option("--extend", help="add to the data set of that name")] = False,
) -> None:
    """Hand over images and labels; a worker looks at every one, divides them, and says what is odd."""
    with reach_service() as client, _packing_explained(), ExitStack() as packing:
        with progress_bar("packing") as tell:
            packed = packing.enter_context(
                pack(path, lambda done, total: tell(done / max(total, 1), f"{total:,} files"))
            )
        with progress_bar("handing over") as tell:
            dataset = client.bring_dataset(packed, path.name, name, extend, tell)
        with progress_bar("looking at it") as tell:
            dataset = client.await_dataset(dataset, tell)
        console.print(dataset_view(dataset))


@datasets_app.command("list")
def list_datasets() -> None:
    """List the data sets that come with Espalier, and those that were added."""
    with reach_service() as client:
        console.print(dataset_table(client.datasets()))


@datasets_app.command("show")
def show_dataset(name: GivenName) -> None:
    """Show an added data set: classes, splits, and what to know of it."""
    with reach_service() as client:
        console.print(dataset_view(client.dataset(name)))


@contextmanager
def progress_bar(title: str) -> Iterator[Tell]:
    """A line that says how far a step is; where nobody looks, that it has begun."""
    if not console.is_terminal:
        console.print(f"{title} ...", highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[message]}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=1.0, message="")
        yield lambda share, message: progress.update(task, completed=share, message=message)


@contextmanager
def _packing_explained() -> Iterator[None]:
    try:
        yield
    except PackingError as error:
        errors.print(f"[red]This cannot be handed over.[/] {escape(str(error))}", highlight=False)
        raise typer.Exit(1) from None


def _numbers(text: str | None, kind: type[int] | type[float], option: str) -> list[float] | None:
    if text is None:
        return None
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"write numbers with commas between, not {text!r}", param_hint=option) from None


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{path} is not UTF-8", param_hint="--classes") from None
    return [line.strip() for line in lines if line.strip()]
