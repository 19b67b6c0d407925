"""How wrong the cost model of this machine's processor is, after some minutes of profiling each of four families.

The same code as `espalier device profile`, into a database of its own. The table is of networks that the model was not
fitted to; repeatability is of networks measured twice in the same run. Prints a table and writes
benchmarks/results/cost_model.json. `--minutes 10` is for each family; `--home DIR` goes on with what is there.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnxruntime
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sqlalchemy import Engine

from search_spaces.catalog import build_network
from search_spaces.cost_models.additive import NUMBERS, AdditiveModel, numbers_of
from search_spaces.costs import network_workloads
from search_spaces.network import Network
from search_spaces.objectives import Metric
from search_spaces.spec import Family, NetworkSpec
from service.cost_models.queries import MeasuredNetwork, load_model, measured_networks
from service.db import make_engine, reading, transaction, upgrade
from service.devices.actions import describe, this_process
from workers.additive_fit import Sample
from workers.cost_models import error_report, fit_model, is_held_out, repeatability
from workers.hardware.onnxruntime_cpu import NAME, OnnxRuntimeCpu
from workers.hardware.processor import processor
from workers.hardware.timing import DEFAULT_PROTOCOL
from workers.host_lock import measuring_for_long
from workers.profile import Profile, conditions_of, take_profile

FAMILIES = (Family.MOBILENET_V1, Family.MOBILENET_V2, Family.RESNET_56, Family.VGG_13)
RESULTS = Path(__file__).parent / "results" / "cost_model.json"
console = Console()


def main(
    minutes: Annotated[float, typer.Option(help="for each family")] = 10.0,
    home: Annotated[Path | None, typer.Option(help="default: a temporary folder")] = None,
) -> None:
    folder = home or Path(tempfile.mkdtemp(prefix="espalier-cost-model-"))
    folder.mkdir(parents=True, exist_ok=True)
    profile = begin(f"sqlite:///{folder / 'espalier.db'}")
    networks = {family: make_network(family) for family in FAMILIES}
    spent_s = {family: measure(profile, network, minutes) for family, network in networks.items()}
    with reading(profile.engine) as session:
        conditions_id = conditions_of(session, profile)
    assert conditions_id is not None, "figures were taken just now"
    begun = time.perf_counter()
    fitted = fit_model(profile.engine, conditions_id)
    fit_s = time.perf_counter() - begun
    with reading(profile.engine) as session:
        measured = measured_networks(session, conditions_id, Metric.LATENCY_S)
        model = load_model(session, fitted.id)
    rows = [row for family in FAMILIES for row in judge(model, family, of_family(networks[family], measured))]
    rows.append({"family": "all", **errors_of(model, measured)["all"], **repeats_of(measured)})
    report = {
        "device": {"name": NAME, **processor(), "onnxruntime": onnxruntime.__version__},
        "minutes": {str(family): seconds / 60 for family, seconds in spent_s.items()},
        "networks": {str(family): len(of_family(networks[family], measured)) for family in FAMILIES},
        "fitted_to": fitted.samples,
        "fit_s": fit_s,
        "predict_ms": predict_ms(model, networks[Family.MOBILENET_V1]),
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")
    show(rows, report)


def begin(url: str) -> Profile:
    upgrade(url)
    engine: Engine = make_engine(url)
    device = OnnxRuntimeCpu()
    with transaction(engine) as session:
        describe(session, device.capabilities(), this_process(), NAME)
    return Profile(engine, device, device.capabilities(), DEFAULT_PROTOCOL)


def make_network(family: Family) -> Network:
    return build_network(NetworkSpec(family=family, input=(3, 32, 32)), 10, (0.5,) * 3, (0.5,) * 3)


def measure(profile: Profile, network: Network, minutes: float) -> float:
    """Seconds that it took."""
    begun = time.perf_counter()
    with measuring_for_long(), Progress(console=console, transient=True) as bar:
        task = bar.add_task(network.name, total=1.0)
        for step in take_profile(profile, [network], 60 * minutes):
            bar.update(task, completed=step.share, description=f"{step.network}: {step.done} measured")
    return time.perf_counter() - begun


def of_family(network: Network, measured: Sequence[MeasuredNetwork]) -> list[MeasuredNetwork]:
    """Those with as many operators of the same kinds in a row: pruning changes neither."""
    shape = operator_names(measured_form(network))
    return [one for one in measured if operator_names(one) == shape]


def measured_form(network: Network) -> MeasuredNetwork:
    whole, operators = network_workloads(network)
    return MeasuredNetwork(whole.digest, tuple(one.signature for one in operators), ())


def operator_names(network: MeasuredNetwork) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(json.loads(signature)["ops"]) for signature in network.operators)


def samples_of(measured: Sequence[MeasuredNetwork]) -> list[Sample]:
    """Of those that the model was not fitted to."""
    return [Sample(one.terms(), float(np.median(one.costs))) for one in measured if is_held_out(one.digest)]


def errors_of(model: AdditiveModel, measured: Sequence[MeasuredNetwork]) -> dict[str, Any]:
    found: dict[str, Any] = error_report(model, samples_of(measured))["held_out"]
    return found


def repeats_of(measured: Sequence[MeasuredNetwork]) -> dict[str, Any]:
    repeats = repeatability(measured)
    return {"repeated": repeats["pairs"], "repeatability": repeats["mean"]} if repeats else {"repeated": 0}


def judge(model: AdditiveModel, family: Family, measured: Sequence[MeasuredNetwork]) -> list[dict[str, Any]]:
    """A row for all of a family, and for each kind of numbers in it."""
    found = errors_of(model, measured)
    groups = {"all": measured}
    for name in NUMBERS:
        groups[name] = [one for one in measured if numbers_of(one.terms()) == name]
    return [
        {"family": str(family), "numbers": name, **found[name], **repeats_of(groups[name])}
        for name in groups
        if found.get(name, {}).get("networks")  # in a few minutes there may be none that is unseen
    ]


def predict_ms(model: AdditiveModel, network: Network, times: int = 50) -> float:
    """Median milliseconds of one prediction, from the network's data."""
    seconds = []
    for _ in range(times):
        begun = time.perf_counter()
        model.predict(network)
        seconds.append(time.perf_counter() - begun)
    return 1e3 * float(np.median(seconds))


def show(rows: Sequence[dict[str, Any]], report: dict[str, Any]) -> None:
    table = Table("family", "numbers", title=f"Unseen networks; fitted to {report['fitted_to']}")
    for heading in ("n", "mean error", "bias", "within 5 %", "within 10 %", "rank", "in 90 %", "repeats within"):
        table.add_column(heading, justify="right")
    for row in rows:
        rank = row.get("rank_correlation")
        table.add_row(
            row["family"],
            row.get("numbers", ""),
            str(row["networks"]),
            f"{row['mean_error']:.2%}",
            f"{row['bias']:+.2%}",
            f"{row['within_5_percent']:.0%}",
            f"{row['within_10_percent']:.0%}",
            "" if rank is None else f"{rank:.4f}",
            f"{row['interval_coverage']:.0%}",
            f"{row['repeatability']:.2%} ({row['repeated']})" if row["repeated"] else "",
        )
    console.print(table)
    minutes = ", ".join(f"{name} {spent:.1f}" for name, spent in report["minutes"].items())
    console.print(f"minutes: {minutes}; fit {report['fit_s']:.1f} s; a prediction {report['predict_ms']:.2f} ms")


if __name__ == "__main__":
    typer.run(main)
