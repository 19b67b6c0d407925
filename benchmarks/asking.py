"""How long a search waits for its next design: the goals of speed, each beside what is measured.

Planning from a cold process (from the start of Python to the first proposal, 10,000 finished trials in a SQLite
database), asking once it is warm, the agent of `ddpg`, greedy's integer program, and the front of 50,000 trials. On one
thread. Prints a table and writes benchmarks/results/asking.json. Medians; `processor` is without what else the machine
does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, insert

from benchmarks import ddpg
from search_spaces.accelerators.models import MODELS
from search_spaces.batch_costs import BatchCosts
from search_spaces.build_space import build_space
from search_spaces.catalog import build_for
from search_spaces.check import check_spec
from search_spaces.cost_tables import Range, cost_tables
from search_spaces.datasets import DATASETS
from search_spaces.known import Known
from search_spaces.objectives import TrialState
from search_spaces.samplers import Proposal, ToldTrial, make_sampler
from search_spaces.samplers.integer_program import IntegerProgram
from search_spaces.samplers.probes import least_changed
from search_spaces.sensitivity import prior_shape
from search_spaces.space import Space
from search_spaces.spec import SearchSpec
from service.db import make_engine, reading, transaction, upgrade
from service.models import Search, Trial, utc_now
from service.searches.queries import get_search
from service.trials.fronts import find_front
from workers.live_sampler import make_live_sampler, unheard_trials

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "asking.json"
PLANNED, SHOWN = 10_000, 50_000
"""Finished trials that are planned after, and that a front is shown of."""
TOGETHER = 5_000
STARTS, ASKS, FRONTS, WALKS = 3, 9, 5, 15
SAMPLERS = {"evolution": 50.0, "nsga2": 50.0, "random": 50.0, "tpe": 500.0}
"""Each with the most ms that it may take for an ask."""
SIZE_LIMIT_BYTES = 6e6
BUDGETS = (0.2, 0.35, 0.5, 0.65, 0.8)

# What a worker does that has just been started and is sent `plan`, up to where it writes.
COLD = """
import json, sys, time
from pathlib import Path
import workers.plan
from service.db import make_engine, reading
from service.searches.queries import get_search
from workers.live_sampler import LiveSamplers, unheard_trials
with reading(make_engine(sys.argv[1])) as session:
    samplers = LiveSamplers()
    live = samplers.take(session, get_search(session, sys.argv[2]))
    unheard = unheard_trials(session, sys.argv[2], live)
samplers.tell(sys.argv[2], live, unheard)
assert live.sampler.ask(1, live.told, [])
# Not `ru_maxrss`, which begins with what the parent had.
peak_kib = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
print(json.dumps({"processor_s": time.process_time(), "mib": peak_kib / 1024, "told": live.told}))
"""
FRONT = """
import sys, time
from service.db import make_engine, reading
from service.searches.queries import get_search
from service.trials.fronts import find_front
began = time.perf_counter(), time.process_time()
with reading(make_engine(sys.argv[1])) as session:
    assert find_front(session, get_search(session, sys.argv[2])).members
print(1000 * (time.perf_counter() - began[0]), 1000 * (time.process_time() - began[1]))
"""

Row = dict[str, Any]


def main() -> None:
    load = round(os.getloadavg()[0], 1)  # of what else the machine does: it adds to the times
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # compiled modules are kept, as in any installation
    with tempfile.TemporaryDirectory(prefix="espalier-asking-") as folder:
        url = f"sqlite:///{folder}/espalier.db"
        upgrade(url)
        engine = make_engine(url)
        rows = [*measure_planning(engine, url), *measure_fronts(engine, url), *measure_agent(), measure_program()]
        engine.dispose()
    protocol = {"planned": PLANNED, "shown": SHOWN, "starts": STARTS, "asks": ASKS, "python": sys.version.split()[0]}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"protocol": {**protocol, "load_before": load}, "rows": rows}, indent=2) + "\n")
    show(rows)


# --- planning ---------------------------------------------------------------------------------------------------


def measure_planning(engine: Engine, url: str) -> list[Row]:
    search_id = add_search(engine, "tpe")
    add_trials(engine, search_id, finished_trials(check_spec(spec_of("random"), Known()).space))
    start_cold(url, search_id)  # the first finds no file in memory
    rows = []
    for name in SAMPLERS:
        with transaction(engine) as session:  # the same history, whoever asks
            get_search(session, search_id).spec = spec_of(name).model_dump(mode="json")
        rows += [*cold_rows(url, name, search_id), ask_row(engine, name, search_id)]
    return rows


def cold_rows(url: str, name: str, search_id: str) -> list[Row]:
    started = [start_cold(url, search_id) for _ in range(STARTS)]
    seconds, processor_s, mib = zip(*started, strict=True)
    goal = None if name == "tpe" else 3.0
    return [
        row(f"planning from a cold process, {name}", "s", goal, seconds, processor_s),
        row(f"its memory, {name}", "MiB", 300.0, mib),
    ]


def start_cold(url: str, search_id: str) -> tuple[float, float, float]:
    """Seconds, seconds of the processor, MiB."""
    start = perf_counter()
    told = json.loads(run_python(COLD, url, search_id))
    assert told["told"] == PLANNED
    return perf_counter() - start, told["processor_s"], told["mib"]


def ask_row(engine: Engine, name: str, search_id: str) -> Row:
    """Asks for one design, each after one more trial was told."""
    with reading(engine) as session:
        live = make_live_sampler(session, get_search(session, search_id))
        told = unheard_trials(session, search_id, live).trials
    live.sampler.tell(told)
    times = []
    for number in range(PLANNED, PLANNED + ASKS + 1):
        (proposal,), *time_ms = timed(partial(live.sampler.ask, 1, number, []))
        live.sampler.tell([succeeded(number, proposal, told[number % PLANNED].values)])
        times.append(time_ms)
    wall_ms, processor_ms = zip(*times[1:], strict=True)
    return row(f"an ask at {PLANNED:,} trials, {name}", "ms", SAMPLERS[name], wall_ms, processor_ms)


def spec_of(sampler: str) -> SearchSpec:
    """40 parameters and some, as a user has them of a MobileNet-V1 without a device that forbids it."""
    precision = {"choices": ["fp32", "w8a8", "w4a4"], "scope": "layer"}
    return SearchSpec.model_validate(
        {
            "name": "asking",
            "network": {"family": "mobilenet_v1", "input": [1, 28, 28], "stem_stride": 1},
            "dataset": {"name": "fashion_mnist"},
            "space": {"prune_ratio": {"high": 0.7}, "precision": precision},
            "objectives": [
                {"metric": "accuracy", "direction": "maximize"},
                {"metric": "macs", "direction": "minimize"},
            ],
            "limits": [{"metric": "size_bytes", "max": SIZE_LIMIT_BYTES}],
            "sampler": {"name": sampler},
            "budget": {"trials": 2 * SHOWN},
        }
    )


def add_search(engine: Engine, sampler: str) -> str:
    search_id, spec = str(uuid.uuid4()), spec_of(sampler).model_dump(mode="json")
    with transaction(engine) as session:
        session.add(Search(id=search_id, name="asking", spec=spec, body_digest="", state="running"))
    return search_id


def finished_trials(space: Space) -> list[Row]:
    """Designs drawn from the whole space, their costs, accuracies that pruning lowers, and predictions near them."""
    assert len(space.decisions) >= 40
    generator = np.random.default_rng(0)
    rows = generator.integers([len(one.choices) for one in space.decisions], size=(PLANNED, len(space.decisions)))
    costs = BatchCosts(space)(rows, ["macs", "size_bytes"])
    accuracy = 0.9 / (1 + np.exp(rows @ generator.random(rows.shape[1]) * 0.05 - 1.5))
    predicted = accuracy + generator.normal(0, 0.02, PLANNED)
    columns = (rows.tolist(), accuracy.tolist(), predicted.tolist(), *(costs[m].tolist() for m in costs))
    return [
        trial_row(
            number,
            {"accuracy": found, "macs": macs, "size_bytes": size},
            size <= SIZE_LIMIT_BYTES,
            design=space.design_at(indices).to_json(),
            memo={"predicted": {"accuracy": foreseen}},
        )
        for number, (indices, found, foreseen, macs, size) in enumerate(zip(*columns, strict=True))
    ]


def trial_row(number: int, values: dict[str, float], is_feasible: bool, **columns: Any) -> Row:
    return {
        "number": number,
        "finish_number": number + 1,
        "design_key": f"{number:064x}",
        "values": values,
        "state": str(TrialState.SUCCEEDED if is_feasible else TrialState.INFEASIBLE),
        "details": {"stage_s": {"build": 0.3, "score": 0.5}},
        "reason": "",
        "attempt": 1,
        "created_at": utc_now(),
        "design": {},
        **columns,
    }


def add_trials(engine: Engine, search_id: str, trials: Sequence[Row]) -> None:
    for start in range(0, len(trials), TOGETHER):
        with transaction(engine) as session:
            session.execute(
                insert(Trial), [{**one, "search_id": search_id} for one in trials[start : start + TOGETHER]]
            )


def succeeded(number: int, proposal: Proposal, values: Any) -> ToldTrial:
    return ToldTrial(number, proposal.design, TrialState.SUCCEEDED, values, {}, proposal.memo, False)


# --- fronts, the agent, the program -----------------------------------------------------------------------------


def measure_fronts(engine: Engine, url: str) -> list[Row]:
    search_id = add_search(engine, "random")
    points = np.random.default_rng(1).random((SHOWN, 2)).tolist()
    add_trials(engine, search_id, [trial_row(n, {"accuracy": a, "macs": m}, True) for n, (a, m) in enumerate(points)])
    first = [tuple(map(float, run_python(FRONT, url, search_id).split())) for _ in range(STARTS + 1)][1:]
    again = [timed(partial(read_front, engine, search_id))[1:] for _ in range(FRONTS + 1)][1:]
    what = f"the front of {SHOWN:,} trials"
    return [
        row(f"{what}, first time in a process", "ms", None, *zip(*first, strict=True)),
        row(f"{what}, after that", "ms", 50.0, *zip(*again, strict=True)),
    ]


def read_front(engine: Engine, search_id: str) -> None:
    with reading(engine) as session:
        assert find_front(session, get_search(session, search_id)).members


def measure_agent() -> list[Row]:
    """Of 28 layers, with bits of each, and with channels too: as many suggestions as trials after the warm-up."""
    rows = []
    for name in ("bits", "channels and bits"):
        spec = ddpg.spec_of(ddpg.SPACES[name])
        network = build_for(spec.network, DATASETS["fashion_mnist"])  # type: ignore[arg-type]
        space, _ = build_space(network, spec.space, MODELS[ddpg.DEVICE].capabilities)
        agent, times = make_sampler(spec, space), []
        for number in range(ddpg.WARM_UP + WALKS):
            (proposal,), *time_ms = timed(partial(agent.ask, 1, number, []))
            agent.tell([ddpg.told(number, proposal.design, proposal.memo)])
            times.append(time_ms)
        rows.append(row(f"ddpg, a suggestion, {name}", "ms", 30.0, *zip(*times[ddpg.WARM_UP :], strict=True)))
        features = (agent.state() or {})["replay.states"].shape[2]  # type: ignore[union-attr]
        rows.append(row(f"ddpg, an update, {name}", "ms", 15.0, [ddpg.update_ms(features)]))
    return rows


def measure_program() -> Row:
    """The design of least loss within a size: pruning and bits of all layers, costs that no layer has alone."""
    space_part = {
        "prune_ratio": {"high": 0.75, "step": 0.05},
        "precision": {"choices": ["fp32", "w8a8", "w4a4", "w2a2"], "scope": "layer"},
    }
    spec = spec_of("greedy").model_copy(update={"limits": ()})
    spec = SearchSpec.model_validate({**spec.model_dump(mode="json"), "space": space_part})
    space = check_spec(spec, Known()).space
    levels, costs = [len(decision.choices) for decision in space.decisions], BatchCosts(space)
    program = IntegerProgram(levels, cost_tables(costs, levels, ["size_bytes"]))
    ends = [tuple(level - 1 for level in levels), least_changed(space)]
    least, most = costs(ends, ["size_bytes"])["size_bytes"]
    losses = [prior_shape(decision) for decision in space.decisions]
    budgets = [least + share * (most - least) for share in BUDGETS]
    times = [timed(partial(program, losses, {"size_bytes": Range(most=one)}, "size_bytes"))[1:] for one in budgets]
    return row(f"greedy's program of {program.variables:,} variables", "s", 1.5, *(np.array(times).T / 1000).tolist())


# --- reporting --------------------------------------------------------------------------------------------------


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """The result, ms, and ms of the processor."""
    start, started = perf_counter(), process_time()
    result = work()
    return result, 1000 * (perf_counter() - start), 1000 * (process_time() - started)


def row(what: str, unit: str, goal: float | None, found: Sequence[float], processor: Sequence[float] = ()) -> Row:
    return {
        "what": what,
        "unit": unit,
        "goal": goal,
        "median": round(median(found), 3),
        "most": round(max(found), 3),
        "processor": round(median(processor), 3) if processor else None,
    }


def run_python(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout


def show(rows: Sequence[Row]) -> None:
    table = Table(title="Asking, and what it may take")
    for column in rows[0]:
        table.add_column(column, justify="left" if column in ("what", "unit") else "right")
    for one in rows:
        table.add_row(*("" if value is None else str(value) for value in one.values()))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
