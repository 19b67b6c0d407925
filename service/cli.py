"""The `espalier` command: what talks HTTP, starts the service, or checks a spec. Loads no torch and no optuna.

Commands that do the work in this process (`try`, `worker`) come from the entry-point group
`espalier.commands`; they are loaded only when asked for, or to be listed in the help.
"""

from __future__ import annotations

import json
import math
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer

from search_spaces.check import check_spec
from search_spaces.known import Known
from search_spaces.parse import parse_document, parse_spec
from search_spaces.spec import SearchSpec
from service import terminal
from service.again_commands import extend, fork
from service.assembled import assembled
from service.bring_commands import datasets_app, networks_app
from service.client import Client, Json
from service.config import get_settings
from service.console import console, errors, failures_explained, reach_service
from service.demo import run_demo
from service.device_commands import devices_app, estimate
from service.examples import example_path
from service.measurement_commands import measurements_app
from service.searches.schemas import check_body
from service.states import JobState
from service.variants import variants
from service.watch import watch_search
from service.wording import counted, describe_activity, describe_file

app = typer.Typer(
    name="espalier",
    cls=assembled("espalier.commands"),
    help="Finds the best compressed form of a neural network for a given piece of hardware.",
    no_args_is_help=True,
    add_completion=False,
)

app.add_typer(networks_app, name="network")
app.add_typer(datasets_app, name="dataset")
app.add_typer(devices_app, name="device")
app.command()(estimate)
app.command()(extend)
app.command()(fork)
app.add_typer(measurements_app, name="measurements")

SpecPath = Annotated[
    Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="a search spec, YAML or JSON")
]
SearchId = Annotated[str, typer.Argument(help="a search's id, or enough of its beginning")]


@app.command()
def up(
    port: Annotated[int | None, typer.Option(help="default: ESPALIER_PORT, or 8080")] = None,
    home: Annotated[Path | None, typer.Option(help="default: ESPALIER_HOME, or ~/.espalier")] = None,
) -> None:
    """Start the service, its workers and its web pages; Ctrl-C stops them."""
    from service import embedded  # starts processes: nothing else here should pay for it

    settings = get_settings()
    changed = {key: value for key, value in {"port": port, "home": home}.items() if value is not None}
    raise typer.Exit(embedded.run(settings.model_copy(update=changed)))


@app.command()
def check(spec: SpecPath) -> None:
    """Check a spec and say how large its space is: here; with networks or data sets of yours, in the service."""
    with failures_explained():
        parsed, known = _read_spec(spec), _installed()
        if known.lacks(parsed):
            with reach_service() as client:
                checked = client.check(spec.read_bytes(), yaml=_is_yaml(spec))
        else:
            checked = check_body(check_spec(parsed, known)).model_dump()
    for warning in checked["warnings"]:
        console.print(f"[yellow]warning[/] {warning}", highlight=False)
    if checked["waiting_for"]:
        console.print(f"[yellow]would wait[/] {checked['waiting_for']}", highlight=False)
    console.print(
        f"{parsed.name}: {counted(len(checked['decisions']), 'decision')}, {checked['size']:.3g} designs, "
        f"{counted(checked['baseline_trials'], 'uniform one')} as the baseline",
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def submit(
    spec: SpecPath,
    watch: Annotated[bool, typer.Option("--watch", help="stay and show the search live")] = False,
    sampler: Annotated[list[str] | None, typer.Option(help="in place of the spec's; again for more searches")] = None,
    seed: Annotated[list[int] | None, typer.Option(min=0, help="likewise, of the sampler")] = None,
) -> None:
    """Hand a spec to the service; with several samplers or seeds, once for each."""
    bodies = _bodies(spec, sampler or [], seed or [])
    if watch and len(bodies) > 1:
        raise typer.BadParameter("--watch shows one search: give one sampler and one seed, or leave it out")
    with reach_service() as client:
        told: set[str] = set()
        for body, is_yaml in bodies:
            search = client.submit(body, yaml=is_yaml)
            console.print(search["id"], highlight=False)
            if watch:
                _watch_to_the_end(client, search["id"])
                return
            for warning in dict.fromkeys(search.get("warnings") or []):
                if warning not in told:
                    errors.print(f"[yellow]warning[/] {warning}", highlight=False)
                told.add(warning)


def _bodies(spec: Path, samplers: list[str], seeds: list[int]) -> list[tuple[bytes, bool]]:
    """What is sent, and whether it is YAML: the file as it is, unless it is to be varied."""
    if not samplers and not seeds:
        return [(spec.read_bytes(), _is_yaml(spec))]
    with failures_explained():
        document = parse_document(spec.read_bytes(), yaml=_is_yaml(spec))
    if not isinstance(document, dict):
        raise typer.BadParameter("the file has to hold an object: a spec")
    return [(json.dumps(one).encode(), False) for one in variants(document, samplers, seeds)]


@app.command(name="list")
def list_searches() -> None:
    """List all searches, newest first."""
    with reach_service() as client:
        console.print(terminal.search_table(client.searches()))


@app.command()
def show(search: SearchId) -> None:
    """Show one search: state, counts, warnings, problem."""
    with reach_service() as client:
        console.print(terminal.search_summary(client.search(client.resolve(search))))


@app.command()
def watch(search: SearchId) -> None:
    """Show a search live until it ends."""
    with reach_service() as client:
        _watch_to_the_end(client, client.resolve(search))


@app.command()
def compare(search: SearchId) -> None:
    """Show a search beside others that ask the same question: which sampler has found more by when."""
    with reach_service() as client:
        console.print(terminal.comparison_table(client.comparison(client.resolve(search))))


@app.command()
def front(
    search: SearchId,
    svg: Annotated[Path | None, typer.Option(dir_okay=False, help="also write the plot to this SVG file")] = None,
) -> None:
    """Show the Pareto front beside the uniform baseline."""
    with reach_service() as client:
        search_id = client.resolve(search)
        _show_result(client, client.search(search_id))
        if svg is not None:
            svg.write_bytes(client.picture(search_id))
            console.print(f"wrote {svg}", highlight=False)


@app.command()
def export(
    search: SearchId,
    trial: Annotated[int | None, typer.Option(min=0, help="the number of the trial to export")] = None,
    knee: Annotated[bool, typer.Option("--knee", help="export the front's knee: the default")] = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="file or folder to write to")] = Path(),
) -> None:
    """Get one design as files, with a report, and its reported beside its re-measured figures."""
    if knee and trial is not None:
        raise typer.BadParameter("give --trial or --knee, not both")
    if not output.is_dir() and not (output.suffix == ".onnx" and output.parent.is_dir()):
        message = "give a folder that is there, or a file that ends in .onnx in one"
        raise typer.BadParameter(message, param_hint="--output")
    with reach_service() as client:
        done = client.await_export(client.request_export(client.resolve(search), trial))
        for path in client.download(done, output):
            told = f"wrote {path} ({path.stat().st_size:,} bytes): {describe_file(path.name)}"
            console.print(told, highlight=False, soft_wrap=True, markup=False)
        console.print(terminal.report_table(done))


@app.command()
def refine(
    search: SearchId,
    epochs: Annotated[float, typer.Option(help="passes over the training images")],
    trial: Annotated[list[int] | None, typer.Option(help="its number; again for more; default: the front")] = None,
    learning_rate: Annotated[float, typer.Option(help="the peak")] = 0.01,
) -> None:
    """Train designs of a finished search on for long, and show them before and after; Ctrl-C stops it.

    Each begins with the weights that the search has left. An export made later takes the newest refinement that helped.
    """
    for name, value in (("--epochs", epochs), ("--learning-rate", learning_rate)):
        if not (math.isfinite(value) and value > 0):
            raise typer.BadParameter(f"give a number above 0, not {value}", param_hint=name)
    with reach_service() as client:
        asked = client.request_refinements(client.resolve(search), trial or [], epochs, learning_rate)
        found = {one["id"]: one for one in asked}
        try:
            with console.status("") as status:
                for one in client.follow_refinements(asked):
                    status.update(f"trial {one['trial']}: {describe_activity(one['activity']) or one['state']}")
                    found[one["id"]] = one
        except KeyboardInterrupt:
            for one in found.values():
                client.cancel_refinement(one["id"])
            errors.print("stopped; what was trained is lost")
            raise typer.Exit(130) from None
        for one in found.values():
            console.print(terminal.refinement_table(one))
        if any(one["state"] != JobState.SUCCEEDED for one in found.values()):
            raise typer.Exit(1)


@app.command()
def cancel(search: SearchId) -> None:
    """Stop a search and free its device."""
    _change(search, "cancel")


@app.command()
def pause(search: SearchId) -> None:
    """Let open trials end, and start no more."""
    _change(search, "pause")


@app.command()
def resume(search: SearchId) -> None:
    """Go on with a paused search."""
    _change(search, "resume")


@app.command()
def demo(
    spec: Annotated[
        Path | None, typer.Argument(exists=True, dir_okay=False, help="default: MobileNet-V1 on Fashion-MNIST")
    ] = None,
) -> None:
    """Run one real search from spec to exported file, with a service of its own."""
    with failures_explained():
        raise typer.Exit(run_demo(spec or example_path(), console, get_settings()))


def _change(search: str, verb: str) -> None:
    with reach_service() as client:
        changed = client.change(client.resolve(search), verb)
        console.print(f"{changed['id']} is {changed['state']}", highlight=False)


def _watch_to_the_end(client: Client, search_id: str) -> None:
    """Exit status 1 unless the search succeeds, so that scripts can build on it."""
    search = watch_search(client, search_id, console)
    _show_result(client, search)
    if search["state"] != "succeeded":
        console.print(terminal.search_summary(search))
        raise typer.Exit(1)


def _show_result(client: Client, search: Json) -> None:
    trials = list(client.trials(search["id"]))
    console.print(terminal.result_view(search, trials, client.front(search["id"])["items"]))


def _read_spec(path: Path) -> SearchSpec:
    return parse_spec(parse_document(path.read_bytes(), yaml=_is_yaml(path)))


def _is_yaml(path: Path) -> bool:
    return path.suffix.lower() != ".json"


def _installed() -> Known:
    """What this machine's own workers would announce; little more than what comes with Espalier without any."""
    for point in entry_points(group="espalier.known"):
        try:
            found: Known = point.load()()
        except ModuleNotFoundError:  # a service-only install has the entry point, not what it imports
            continue
        return found
    return Known()
