"""Rows and documents that service tests begin with."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy import Engine

from search_spaces.capabilities import DeviceCapabilities
from search_spaces.check import check_spec
from search_spaces.costs import WorkloadKind
from search_spaces.design import Design
from search_spaces.objectives import Metric, Outcome, Provenance, TrialState
from search_spaces.parse import parse_spec
from service.config import Settings
from service.db import transaction
from service.devices.actions import announce, this_process, wake_waiting
from service.known import known_for
from service.measurements.actions import NewMeasurement, WorkloadKey
from service.models import Preparation, Search, Trial
from service.preparations.actions import finish_preparation, start_preparation
from service.searches.actions import create_search
from service.searches.queries import lock_search
from service.trials.actions import NewTrial, add_trials, finish_trial, start_trial

LOCAL_CPU = DeviceCapabilities(
    name="local-cpu",
    description="ONNX Runtime on this machine's processor",
    precisions=("fp32", "w8a8"),
    channel_divisor=16,
    metrics=(Metric.LATENCY_S,),
    unavailable={Metric.ENERGY_J: "no energy counter can be read"},
)


def example_spec(**changes: Any) -> dict[str, Any]:
    """The example that ships with the project, with some of its parts replaced."""
    path = Path(__file__).parents[2] / "examples" / "mobilenet_v1_fashion_mnist.yaml"
    spec: dict[str, Any] = yaml.safe_load(path.read_text())
    return {**spec, **changes}


def add_device(engine: Engine, capabilities: DeviceCapabilities = LOCAL_CPU) -> None:
    with transaction(engine) as session:
        announce(session, capabilities, this_process())
    wake_waiting(engine)


def add_search(engine: Engine, spec: Mapping[str, Any] | None = None) -> str:
    """A queued search whose device is known."""
    add_device(engine)
    with transaction(engine) as session:
        parsed = parse_spec(dict(spec or example_spec()))
        return create_search(session, check_spec(parsed, known_for(session, parsed)), None, "").id


def add_running_search(engine: Engine, spec: Mapping[str, Any] | None = None) -> str:
    """A search whose base is ready."""
    search_id = add_search(engine, spec)
    with transaction(engine) as session:
        preparation = session.query(Preparation).filter_by(search_id=search_id).one()
        attempt = start_preparation(session, preparation.id, "worker", 60)
        assert attempt is not None
        assert finish_preparation(session, preparation.id, attempt, "key", {"accuracy": 0.9})
    return search_id


def add_trial_rows(engine: Engine, search_id: str, count: int, *, baseline: bool = False) -> list[Trial]:
    """Queued trials with designs that no other trial has."""
    with transaction(engine) as session:
        search = lock_search(session, search_id)
        known = session.query(Trial).filter_by(search_id=search_id).count()
        new = [
            NewTrial(Design.of({"channels/stem": number}), f"{number:064x}", {})
            for number in range(known, known + count)
        ]
        return add_trials(session, search, new, baseline=baseline)


def run_trial(engine: Engine, trial_id: int, outcome: Outcome) -> None:
    with transaction(engine) as session:
        attempt = start_trial(session, trial_id, "worker", 60)
        assert attempt is not None
        assert finish_trial(session, trial_id, attempt, outcome)


def success(accuracy: float, latency_s: float, size_bytes: float = 1000.0) -> Outcome:
    values = {"accuracy": accuracy, "latency_s": latency_s, "size_bytes": size_bytes}
    return Outcome(TrialState.SUCCEEDED, values, details={"stage_s": {"score": 0.1}})


def stopped(accuracy: float, latency_s: float) -> Outcome:
    """At the second of three steps; at the first it was worth less."""
    values = {"accuracy": accuracy, "latency_s": latency_s, "size_bytes": 1000.0}
    rungs = (values | {"accuracy": 0.5}, values)
    reason, expected = "place 9 of 9 at step 2 of 3", values | {"accuracy": accuracy + 0.01}
    return Outcome(TrialState.STOPPED, values, reason, rungs=rungs, expected=expected)


def get_row(engine: Engine, search_id: str) -> Search:
    with transaction(engine) as session:
        return session.get_one(Search, search_id)


def waiting_messages(settings: Settings) -> list[tuple[str, Any]]:
    """(task name, id) of the messages in the embedded broker, oldest first."""
    folder = settings.broker_folder / "messages"
    messages = [json.loads(path.read_text()) for path in sorted(folder.glob("*.msg"))]
    arguments = [json.loads(base64.b64decode(message["body"]))[0] for message in messages]
    return [(message["headers"]["task"], row_id) for message, (row_id,) in zip(messages, arguments, strict=True)]


def new_measurement(**changes: Any) -> NewMeasurement:
    """A latency of a network on the local processor, with some of its parts replaced."""
    values: dict[str, Any] = {
        "workload": WorkloadKey(WorkloadKind.NETWORK, "w" * 64, "{}"),
        "device": LOCAL_CPU.name,
        "fingerprint": LOCAL_CPU.fingerprint,
        "protocol": {"batch": 1, "threads": 1},
        "metric": Metric.LATENCY_S,
        "median": 1e-3,
        "lower_quartile": 9e-4,
        "upper_quartile": 2e-3,
        "count": 3,
        "samples": (9e-4, 1e-3, 2e-3),
        "anchor_ratio": None,
        "provenance": Provenance.MEASURED,
    }
    return NewMeasurement(**(values | changes))
