"""The pages of devices: what they are, and how right their cost models were. They show the same bodies as the API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response
from markupsafe import Markup

from search_spaces.objectives import Metric
from service.brought import Fact
from service.devices.accuracy import read_accuracy
from service.devices.queries import get_device, list_devices
from service.devices.schemas import AccuracyBody, CostModelBody, DeviceBody, ResidualBody, device_body
from service.edge import NameInPath
from service.units import ABSENT, show_with_unit, unit_of
from service.web.accuracy_plot import Comparison, render_comparison
from service.web.page import Reading, render
from service.wording import counted

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

_MOST_PRECISIONS = 4


@dataclass(frozen=True, slots=True)
class DeviceView:
    """A device as its pages show it; `style` is the class of its state."""

    name: str
    state: str
    style: str
    tells: str
    executes: str
    description: str
    is_simulated: bool
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One group of networks that a version of a cost model was not fitted to."""

    version: str
    setting: str
    samples: str
    group: str
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ResidualRow:
    search_id: str
    trial: int
    why: str
    cells: tuple[str, ...]


@router.get("/devices")
def devices_page(request: Request, session: Reading) -> Response:
    """All devices that are known, those that can be touched first."""
    views = [device_view(device_body(device)) for device in list_devices(session)]
    return render(request, "devices.html", devices=sorted(views, key=lambda view: view.is_simulated))


@router.get("/devices/{name}")
def device_page(request: Request, session: Reading, name: NameInPath) -> Response:
    """One device."""
    device = get_device(session, name)
    accuracy = read_accuracy(session, device)
    current = next((model for model in accuracy.models if model.is_current), None)
    return render(
        request,
        "device.html",
        device=device_view(device_body(device)),
        plot=Markup("" if current is None else _plot(current)),
        models=[row for model in accuracy.models for row in model_rows(model)],
        repeats="" if current is None else _repeats(current),
        in_searches=_in_searches(accuracy),
        residuals=[_residual_row(one) for one in accuracy.residuals],
    )


def device_view(device: DeviceBody) -> DeviceView:
    told = device.capabilities
    state, style = ("live", "succeeded") if device.is_live else ("away", "paused")
    if told.simulated:
        state, style = "simulated", ""
    return DeviceView(
        name=device.name,
        state=state,
        style=style,
        tells=", ".join(unit_of(metric).title for metric in told.metrics),
        executes=_precisions(told.precisions),
        description=told.description,
        is_simulated=told.simulated,
        facts=tuple(_facts(device)),
    )


def _facts(device: DeviceBody) -> Iterator[Fact]:
    told = device.capabilities
    yield Fact("executes", f"{_precisions(told.precisions)}, chosen for each {told.precision_scope}")
    yield Fact("channels", f"best in multiples of {told.channel_divisor}")
    yield Fact("tells", ", ".join(unit_of(metric).title for metric in told.metrics))
    for metric, reason in told.unavailable.items():
        yield Fact(f"no {unit_of(metric).title}", reason)
    for name, value in told.fingerprint.items():
        yield Fact(name.replace("_", " "), value or ABSENT)
    if device.host:
        yield Fact("machine", device.host)
    yield Fact("last seen", f"{device.seen_at:%Y-%m-%d %H:%M} UTC")


def _precisions(precisions: tuple[str, ...]) -> str:
    if len(precisions) <= _MOST_PRECISIONS:
        return ", ".join(precisions)
    return f"{precisions[0]} to {precisions[-1]}"


def model_rows(model: CostModelBody) -> Iterator[ModelRow]:
    """One for each group of networks held out."""
    use = ", in use" if model.is_current else ""
    threads = f", {counted(model.threads, 'thread')}" if model.threads else ""
    setting = f"batch {model.batch}{threads}"
    groups: Mapping[str, Mapping[str, Any]] = model.report.get("held_out", {})
    for name, errors in groups.items():
        is_first = name == next(iter(groups))
        yield ModelRow(
            version=f"{model.version}{use}" if is_first else "",
            setting=setting if is_first else "",
            samples=f"{model.samples:,}" if is_first else "",
            group=name,
            cells=(str(errors["networks"]), *_shares(errors)),
        )


def _shares(errors: Mapping[str, Any]) -> tuple[str, ...]:
    names = ("mean_error", "within_5_percent", "within_10_percent", "interval_coverage")
    return tuple(f"{errors[name]:.1%}" if name in errors else ABSENT for name in names)


def _plot(model: CostModelBody) -> str:
    told = [Comparison(**point) for point in model.report.get("points", ())]
    points = [point for point in told if min(point.predicted, point.measured) > 0]  # on logarithmic axes
    return render_comparison(points, model.metric)


def _repeats(model: CostModelBody) -> str:
    found = model.report.get("repeatability")
    if not found:
        return ""
    return f"Measured twice, {found['pairs']} networks differed by {found['mean']:.1%} in the mean."


def _in_searches(accuracy: AccuracyBody) -> list[str]:
    return [
        f"Measured as {reason}: {counted(found.trials, 'trial')}, {found.mean_error:.1%} off in the mean, "
        f"{found.within_5_percent:.0%} within 5 %, {found.within_10_percent:.0%} within 10 %, "
        f"{found.interval_coverage:.0%} in the interval."
        for reason, found in accuracy.in_searches.items()
    ]


def _residual_row(one: ResidualBody) -> ResidualRow:
    values = (show_with_unit(Metric.LATENCY_S, value) for value in (one.predicted, one.measured))
    return ResidualRow(
        one.search_id, one.trial, one.why_measured, (*values, f"{one.predicted / one.measured - 1:+.1%}")
    )
